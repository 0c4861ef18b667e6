//! Chance from a seed: the xoshiro256++ generator, seeded by SplitMix64. Not for secrets.

/// A source of numbers that follow from its seed.
pub(crate) struct Chance([u64; 4]);

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Chance {
    /// The stream of a seed; another `stream` of the same seed is independent of it.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut state = seed;
        let mut other = splitmix(&mut state) ^ stream;
        Self(std::array::from_fn(|_| splitmix(&mut other)))
    }

    /// 64 equally likely bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Equally likely in [0, 1).
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what the mantissa holds: the conversion is exact.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Equally likely below `count`; 0 when there is no choice.
    pub fn below(&mut self, count: usize) -> usize {
        let wide = u128::from(self.bits()) * count as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Normally distributed around 0 with standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        // Box and Muller; the first draw is never 0.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_numbers_and_they_are_spread() {
        let draw = |seed, stream| {
            let mut chance = Chance::new(seed, stream);
            (0..1000).map(|_| chance.unit()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
        let drawn = draw(1, 1);
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        let mut chance = Chance::new(3, 0);
        let normal: Vec<f64> = (0..4000).map(|_| chance.normal()).collect();
        let spread = normal.iter().map(|x| x * x).sum::<f64>() / 4000.0;
        assert!((0.9..1.1).contains(&spread), "{spread}");
        assert!((0..200).all(|_| chance.below(3) < 3));
        assert_eq!(chance.below(0), 0);
    }
}
