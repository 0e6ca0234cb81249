//! How many claims come within a time.
//!
//! Somebody comes on occasions, by chance, at a rate that is not known for certain: that is a negative binomial number
//! of occasions (Gamma-Poisson). On some of them several claims come together, such as a program that starts agents
//! side by side: their number is geometric. The sum is walked from its left end by Panjer's recursion.

use serde::Serialize;

/// Of the occasions on which somebody comes, those on which several do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bunches {
    /// Their part of all occasions, from 0 to 1.
    pub share: f64,
    /// The claims of one of them in the mean, at least 1.
    pub size: f64,
}

impl Bunches {
    /// Everybody comes alone.
    pub const NONE: Self = Self { share: 0.0, size: 1.0 };

    /// Claims on an occasion, in the mean.
    pub fn per_occasion(self) -> f64 {
        1.0 - self.share + self.share * self.size
    }
}

/// A count to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Count {
    /// Occasions in the mean.
    pub occasions: f64,
    /// In how many occasions their rate was seen: the fewer, the more doubt.
    pub seen: f64,
    pub bunches: Bunches,
}

impl Count {
    pub const NONE: Self = Self { occasions: 0.0, seen: 1.0, bunches: Bunches::NONE };

    /// Claims in the mean.
    pub fn mean(&self) -> f64 {
        self.occasions * self.bunches.per_occasion()
    }

    /// The smallest `n` up to `max` that is exceeded with a chance of at most `odds`.
    pub fn exceeded_at_most(&self, odds: f64, max: u32) -> u32 {
        let mut reach = self.reach();
        // `reach` answers P(N >= 1) first, which is P(N > 0).
        (0..max).find(|_| reach.next() <= odds).unwrap_or(max)
    }

    /// The chances of at least 1, of at least 2, and so on.
    pub(crate) fn reach(&self) -> Reach {
        let doubt = self.occasions.max(0.0) / self.seen;
        let again = doubt / (1.0 + doubt);
        Reach {
            again,
            growth: (self.seen - 1.0) * again,
            bunches: self.bunches,
            stop: 1.0 / self.bunches.size.max(1.0),
            term: 1.0,
            sum: 1.0,
            scale: -self.seen * doubt.ln_1p(),
            later: 0.0,
            weighted: 0.0,
            n: 0.0,
        }
    }
}

/// Walks the distribution. Terms are kept relative to a scale, because P(0) of a large count is less than the smallest
/// number there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Panjer's two numbers of the negative binomial.
    again: f64,
    growth: f64,
    bunches: Bunches,
    stop: f64,
    /// P(n) and the sum up to it, both divided by `exp(scale)`.
    term: f64,
    sum: f64,
    scale: f64,
    /// Sums over j of q^(j-1) P(n-j), and of the same times j: a geometric size lets both grow with one step.
    later: f64,
    weighted: f64,
    n: f64,
}

/// Where terms are brought back into range.
const LARGE: f64 = 1e200;

impl Reach {
    /// P(N >= n) for the next `n`, from 1.
    pub fn next(&mut self) -> f64 {
        let chance = (1.0 - self.sum * self.scale.exp()).clamp(0.0, 1.0);
        let Bunches { share, .. } = self.bunches;
        self.n += 1.0;
        self.later = self.term + (1.0 - self.stop) * self.later;
        self.weighted = self.later + (1.0 - self.stop) * self.weighted;
        let sizes = (1.0 - share) * self.term + share * self.stop * self.later;
        let weighted = (1.0 - share) * self.term + share * self.stop * self.weighted;
        self.term = self.again * sizes + self.growth * weighted / self.n;
        self.sum += self.term;
        if self.sum > LARGE {
            for value in [&mut self.term, &mut self.sum, &mut self.later, &mut self.weighted] {
                *value /= LARGE;
            }
            self.scale += LARGE.ln();
        }
        chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alone(occasions: f64, seen: f64) -> Count {
        Count { occasions, seen, bunches: Bunches::NONE }
    }

    fn chances(count: Count, n: usize) -> Vec<f64> {
        let mut reach = count.reach();
        (0..n).map(|_| reach.next()).collect()
    }

    #[test]
    fn it_is_poisson_where_the_rate_is_known_and_everybody_comes_alone() {
        let e = (-2.0f64).exp();
        let expected = [1.0 - e, 1.0 - 3.0 * e, 1.0 - 5.0 * e];
        for (got, expected) in chances(alone(2.0, 1e7), 3).into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
        // P(N > 6) is 0.0045 and P(N > 5) is 0.0166.
        assert_eq!(alone(2.0, 1e7).exceeded_at_most(0.01, 100), 6);
    }

    #[test]
    fn it_is_geometric_where_the_rate_was_seen_once() {
        // Mean 3: P(N >= n) = 0.75^n.
        for (got, n) in chances(alone(3.0, 1.0), 40).into_iter().zip(1..) {
            assert!((got - 0.75f64.powi(n)).abs() < 1e-9, "{n}");
        }
        assert_eq!(alone(3.0, 1.0).exceeded_at_most(0.01, 100), 16);
    }

    /// Rare occasions: at most one comes, and its size is what counts.
    #[test]
    fn a_bunch_comes_as_a_whole() {
        let count = Count { occasions: 0.001, seen: 1e6, bunches: Bunches { share: 0.5, size: 4.0 } };
        for (got, n) in chances(count, 10).into_iter().zip(1..) {
            let expected = 0.001 * (if n == 1 { 0.5 } else { 0.0 } + 0.5 * 0.75f64.powi(n - 1));
            assert!((got - expected).abs() < 2e-6, "{n}: {got} {expected}");
        }
        assert!((count.mean() - 0.0025).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_expected_of_nothing_and_much_of_much() {
        assert_eq!(Count::NONE.exceeded_at_most(0.01, 100), 0);
        assert_eq!(alone(0.001, 50.0).exceeded_at_most(0.01, 100), 0);
        // Variance 2000 + 2000^2 / 2500 = 60^2; a normal approximation gives 2000 + 2.326 * 60.
        let large = alone(2000.0, 2500.0).exceeded_at_most(0.01, 10_000);
        assert!((2135..2150).contains(&large), "{large}");
        assert_eq!(alone(2000.0, 2500.0).exceeded_at_most(0.01, 50), 50);
    }

    proptest! {
        /// The chances sum up to the mean, they only fall, and more, larger or more doubtful counts never ask for fewer.
        #[test]
        fn it_is_a_distribution(
            occasions in 0.001f64..20.0, seen in 0.5f64..300.0, share in 0.0f64..1.0, size in 1.0f64..8.0,
            odds in 0.0001f64..0.3,
        ) {
            let count = Count { occasions, seen, bunches: Bunches { share, size } };
            let chances = chances(count, 6000);
            prop_assert!(chances.windows(2).all(|w| w[1] <= w[0] + 1e-9));
            let mean: f64 = chances.iter().sum();
            prop_assert!((mean - count.mean()).abs() < 0.01 * count.mean() + 1e-6, "{mean} {}", count.mean());
            let n = count.exceeded_at_most(odds, 6000);
            prop_assert!(count.exceeded_at_most(odds / 2.0, 6000) >= n);
            let more = Count { occasions: occasions * 1.5, ..count };
            let larger = Count { bunches: Bunches { share, size: size * 1.5 }, ..count };
            prop_assert!(more.exceeded_at_most(odds, 6000) >= n);
            prop_assert!(larger.exceeded_at_most(odds, 6000) >= n);
        }
    }
}
