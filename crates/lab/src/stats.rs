//! How likely what was counted is: χ² and its probability, and what ideal hashing does to the same number of
//! requests. Pure.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// How many simulated runs the quantiles of [`Ideal`] come from: the 99.9th percentile then is the 200th largest.
const TRIALS: usize = 200_000;
/// The simulation is the same every time.
const TRIALS_SEED: u64 = 0x1dea;
/// The smallest χ² probability that still counts as agreement: chance goes below it once in 10,000 runs.
pub const P_MIN: f64 = 1e-4;

/// Pearson's test of counts against what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChiSquare {
    /// Σ (count − expected)² / expected.
    pub statistic: f64,
    /// Categories that can be hit, less one.
    pub degrees: u32,
    /// The probability of a statistic at least this large if the expectation is right.
    pub p: f64,
}

/// Tests counts against expected ones. A count where nothing was expected makes p 0.
pub fn chi_square(counts: &[u64], expected: &[f64]) -> ChiSquare {
    let (mut statistic, mut categories, mut impossible) = (0.0, 0_u32, false);
    for (count, expected) in counts.iter().zip(expected) {
        if *expected > 0.0 {
            statistic += (*count as f64 - expected).powi(2) / expected;
            categories += 1;
        } else {
            impossible |= *count > 0;
        }
    }
    let degrees = categories.saturating_sub(1);
    let p = match (impossible, degrees) {
        (true, _) => 0.0,
        (false, 0) => 1.0,
        (false, _) => upper_gamma(f64::from(degrees) / 2.0, statistic / 2.0),
    };
    ChiSquare { statistic, degrees, p }
}

/// The regularised upper incomplete gamma function Q(a, x): by its series below a + 1, by the continued fraction
/// above (Numerical Recipes, 3rd edition, section 6.2).
pub fn upper_gamma(a: f64, x: f64) -> f64 {
    const STEPS_MAX: u32 = 10_000;
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for step in 1..STEPS_MAX {
            term *= x / (a + f64::from(step));
            sum += term;
            if term < sum * f64::EPSILON {
                break;
            }
        }
        return (1.0 - sum * scale).clamp(0.0, 1.0);
    }
    // Lentz's method.
    let tiny = f64::MIN_POSITIVE / f64::EPSILON;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut fraction = d;
    for step in 1..STEPS_MAX {
        let i = f64::from(step);
        let numerator = -i * (i - a);
        b += 2.0;
        d = 1.0 / not_zero(numerator * d + b, tiny);
        c = not_zero(b + numerator / c, tiny);
        fraction *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    (scale * fraction).clamp(0.0, 1.0)
}

fn not_zero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// ln Γ(x) for x > 0, by Lanczos' approximation with g = 7 and nine terms (about 15 digits).
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let mut sum = 0.999_999_999_999_809_9;
    for (index, coefficient) in COEFFICIENTS.iter().enumerate() {
        sum += coefficient / (x + index as f64 + 1.0);
    }
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// What ideal hashing does: every request goes to one of N servers at random, each as likely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ideal {
    /// Requests per server.
    pub mean: f64,
    /// The standard deviation of one server's count, √(n · 1/N · (1 − 1/N)).
    pub stddev: f64,
    /// The mean over many runs of the largest count by the mean one.
    pub max_over_mean: f64,
    /// Its 1st percentile.
    pub max_over_mean_p1: f64,
    /// Its 99th percentile.
    pub max_over_mean_p99: f64,
    /// Its 99.9th percentile: one run in a thousand is worse.
    pub max_over_mean_p999: f64,
    /// Its standard deviation from run to run.
    pub max_over_mean_stddev: f64,
    /// The mean over many runs of the smallest count by the mean one.
    pub min_over_mean: f64,
    /// Its 1st percentile.
    pub min_over_mean_p1: f64,
    /// Its 99th percentile.
    pub min_over_mean_p99: f64,
}

impl Ideal {
    /// Of `requests` over `servers`: simulated, with binomials drawn from normal distributions, which is exact to
    /// the fourth digit from a few hundred requests per server on.
    pub fn of(requests: usize, servers: usize) -> Ideal {
        static KNOWN: Mutex<BTreeMap<(usize, usize), Ideal>> = Mutex::new(BTreeMap::new());
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (requests, servers.max(1));
        if let Some(ideal) = known().get(&key) {
            return *ideal;
        }
        let ideal = simulate(key.0, key.1);
        known().insert(key, ideal);
        ideal
    }

    /// The largest acceptable mean of max/mean over so many runs: 3.5 standard errors above the expected one.
    pub fn mean_bound(&self, runs: usize) -> f64 {
        self.max_over_mean + 3.5 * self.max_over_mean_stddev / (runs.max(1) as f64).sqrt()
    }
}

fn simulate(requests: usize, servers: usize) -> Ideal {
    let (n, count) = (requests as f64, servers as f64);
    let mean = n / count;
    let mut random = Random::new(TRIALS_SEED);
    let (mut largest, mut smallest) = (Vec::with_capacity(TRIALS), Vec::with_capacity(TRIALS));
    for _ in 0..TRIALS {
        let (mut left, mut max, mut min) = (n, 0.0_f64, f64::INFINITY);
        for server in 0..servers {
            // What is left falls to this server with probability 1 / servers left: a binomial.
            let share = 1.0 / (servers - server) as f64;
            let drawn = left * share + (left * share * (1.0 - share)).sqrt() * random.normal();
            let own = drawn.round().clamp(0.0, left);
            left -= own;
            max = max.max(own);
            min = min.min(own);
        }
        largest.push(max / mean);
        smallest.push(min / mean);
    }
    largest.sort_by(f64::total_cmp);
    smallest.sort_by(f64::total_cmp);
    let max_over_mean = average(&largest);
    let variance = largest.iter().map(|value| (value - max_over_mean).powi(2)).sum::<f64>() / TRIALS as f64;
    Ideal {
        mean,
        stddev: (mean * (1.0 - 1.0 / count)).sqrt(),
        max_over_mean,
        max_over_mean_p1: quantile(&largest, 0.01),
        max_over_mean_p99: quantile(&largest, 0.99),
        max_over_mean_p999: quantile(&largest, 0.999),
        max_over_mean_stddev: variance.sqrt(),
        min_over_mean: average(&smallest),
        min_over_mean_p1: quantile(&smallest, 0.01),
        min_over_mean_p99: quantile(&smallest, 0.99),
    }
}

/// The arithmetic mean; 0 of nothing.
pub fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The middle value; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A quantile of sorted values; 0 of nothing.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{value} for {expected}");
    }

    #[test]
    fn the_incomplete_gamma_function_has_its_tabulated_values() {
        // Quantiles of χ² from the usual tables: degrees, statistic, probability.
        for (degrees, statistic, p) in [
            (1.0, 3.841_458_820_694_124, 0.05),
            (2.0, 5.991_464_547_107_98, 0.05),
            (2.0, 9.210_340_371_976_18, 0.01),
            (2.0, 13.815_510_557_964_274, 0.001),
            (5.0, 11.070_497_693_516_351, 0.05),
            (10.0, 2.155_856_481_304_6, 0.995),
            (99.0, 123.225_221_453_361_86, 0.05),
            (999.0, 1_142.848_0, 0.001),
        ] {
            close(upper_gamma(degrees / 2.0, statistic / 2.0), p, 2e-7);
        }
        close(upper_gamma(0.5, 0.0), 1.0, 0.0);
        close(upper_gamma(1.0, 700.0) / (-700.0_f64).exp(), 1.0, 1e-9);
    }

    #[test]
    fn ln_gamma_is_that_of_factorials() {
        close(ln_gamma(1.0), 0.0, 1e-14);
        close(ln_gamma(11.0), 3_628_800_f64.ln(), 1e-12);
        close(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln(), 1e-14);
    }

    #[test]
    fn chi_square_judges_counts() {
        let fair = chi_square(&[3_333, 3_333, 3_334], &[3_333.3; 3]);
        assert!(fair.p > 0.99 && fair.degrees == 2, "{fair:?}");
        let mendel = chi_square(&[315, 108, 101, 32], &[312.75, 104.25, 104.25, 34.75]);
        close(mendel.statistic, 0.470, 1e-3);
        close(mendel.p, 0.925_4, 1e-4);
        assert!(chi_square(&[8_437, 469, 1_094], &[3_333.3; 3]).p < 1e-300);
        assert_eq!(chi_square(&[10, 1], &[10.0, 0.0]).p, 0.0, "what cannot happen has happened");
        assert_eq!(chi_square(&[10, 0], &[10.0, 0.0]).p, 1.0, "one category leaves no choice");
    }

    #[test]
    fn ideal_hashing_is_that_of_the_simulated_multinomials() {
        // Of 200,000 exact multinomials of 10,000 requests: servers, E max/mean, p99, p99.9, E min/mean, σ.
        for (servers, max, p99, p999, min, stddev) in [
            (2, 1.008_0, 1.025_8, 1.032_8, 0.992_0, 50.0),
            (3, 1.014_7, 1.038_6, 1.048_2, 0.985_4, 47.14),
            (6, 1.031_1, 1.066_2, 1.080_6, 0.969_1, 37.27),
        ] {
            let ideal = Ideal::of(10_000, servers);
            close(ideal.max_over_mean, max, 2e-4);
            close(ideal.max_over_mean_p99, p99, 8e-4);
            close(ideal.max_over_mean_p999, p999, 2e-3);
            close(ideal.min_over_mean, min, 2e-4);
            close(ideal.stddev, stddev, 0.01);
        }
        close(Ideal::of(10_000, 3).mean_bound(20), 1.021, 5e-4);
        close(Ideal::of(10_000, 1).max_over_mean, 1.0, 0.0);
    }
}
