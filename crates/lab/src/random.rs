//! Seeded random numbers: the same seed gives the same request ids and the same arrivals everywhere.

use std::f64::consts::TAU;

/// SplitMix64 (Steele et al., OOPSLA 2014): one addition and one mix a number, and every seed is a good one.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to just below 1, in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A request id as the assignment has them: six digits, 100000 to 999999.
    pub fn request_id(&mut self) -> u32 {
        100_000 + (((self.bits() >> 32) * 900_000) >> 32) as u32
    }

    /// A gap between two arrivals that come independently of each other, with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// From the normal distribution with mean 0 and standard deviation 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

/// The request ids of a seed.
pub fn request_ids(seed: u64, count: usize) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.request_id()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_six_digits_and_follow_from_the_seed() {
        let ids = request_ids(7, 10_000);
        assert!(ids.iter().all(|id| (100_000..=999_999).contains(id)));
        assert_eq!(ids, request_ids(7, 10_000));
        assert_eq!(ids[..100], request_ids(7, 100), "fewer of them are the first of more");
        assert_ne!(ids, request_ids(8, 10_000));
    }

    #[test]
    fn gaps_and_normals_have_their_means() {
        let mut random = Random::new(1);
        let gaps: f64 = (0..100_000).map(|_| random.exponential()).sum();
        assert!((gaps / 1e5 - 1.0).abs() < 0.02, "{gaps}");
        let normals: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = normals.iter().sum::<f64>() / 1e5;
        let variance = normals.iter().map(|n| n * n).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
