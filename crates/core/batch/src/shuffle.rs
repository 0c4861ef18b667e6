//! The order in which a channel's entries are sent (CC-25, CC-28): as they are listed, or shuffled anew in every epoch.

/// A permutation of `0..count` that depends on the arguments alone: every instance of a job finds the same one.
pub fn order(count: usize, seed: i64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut chance = Chance::new(seed, epoch);
    for last in (1..count).rev() {
        order.swap(last, chance.below(last.saturating_add(1)));
    }
    order
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn new(seed: i64, epoch: u64) -> Self {
        // Mixed, so that neighbouring seeds and epochs share nothing.
        let seed = Self(seed.cast_unsigned()).next();
        Self(Self(seed.wrapping_add(epoch)).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Every number below `bound` as likely as any other.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        // Numbers above the last multiple of `bound` would favour the small ones.
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let drawn = self.next();
            if drawn < limit {
                return usize::try_from(drawn % bound).unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Proves: CC-25
    #[test]
    fn an_order_is_a_permutation_that_seed_and_epoch_decide() {
        for count in [0, 1, 2, 7, 1000] {
            let once = order(count, 42, 3);
            assert_eq!(once, order(count, 42, 3));
            assert_eq!(once.iter().copied().collect::<BTreeSet<_>>().len(), count);
            assert!(once.iter().all(|place| *place < count));
        }
        let all: BTreeSet<_> = (0..4)
            .flat_map(|seed| (0..4).map(move |epoch| order(50, seed, epoch)))
            .collect();
        assert_eq!(all.len(), 16, "every seed and epoch has its own");
        assert_ne!(order(50, -1, 0), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn no_place_is_favoured() {
        let mut first = [0u32; 5];
        for epoch in 0..5000 {
            first[order(5, 7, epoch)[0]] += 1;
        }
        assert!(first.iter().all(|count| (850..1150).contains(count)), "{first:?}");
    }
}
