//! How even shares are, in the figures that the interfaces print.

use super::Share;

/// The spread of shares around their mean. All are 0 without members.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// The largest share by the mean one.
    pub max_over_mean: f64,
    /// The smallest share by the mean one.
    pub min_over_mean: f64,
    /// The population's standard deviation of the shares, which are fractions of 1.
    pub stddev: f64,
}

impl Spread {
    /// The spread of these shares.
    pub fn of(shares: &[Share]) -> Spread {
        Spread::of_values(shares.iter().map(|share| share.share))
    }

    /// The spread of any values that are not negative, such as counts of requests.
    pub fn of_values(values: impl Iterator<Item = f64> + Clone) -> Spread {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count;
        if mean.is_nan() || mean <= 0.0 {
            return Spread::default();
        }
        let variance = values.clone().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Spread {
            max_over_mean: values.clone().fold(0.0, f64::max) / mean,
            min_over_mean: values.fold(f64::INFINITY, f64::min) / mean,
            stddev: variance.sqrt(),
        }
    }

    /// The standard deviation by the mean, for `count` members whose shares add up to 1.
    pub fn stddev_over_mean(&self, count: usize) -> f64 {
        self.stddev * count as f64
    }
}
