/// All calls, or all that a group could be asked to take.
pub(super) const WHOLE: u32 = 1_000_000;

/// What a group can take, in parts of [`WHOLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// By the part of its endpoints that are ready.
    pub(super) able: u32,
    /// What of that it is to take for now: less while calls return to it.
    pub(super) eased: u32,
}

/// What `ready` of `total` endpoints can take, in parts of [`WHOLE`].
pub(super) fn capacity(ready: usize, total: usize, factor: u32) -> u32 {
    let scaled = ready as u128 * u128::from(factor) * u128::from(WHOLE) / 100;
    let part = scaled.checked_div(total as u128).unwrap_or(0);
    u32::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

/// Splits all calls over groups, the best first: each takes of what is left as much as it is to; what is left after the
/// last, they take as far as they are able; and if that is not enough, they share in proportion to what they can take.
///
/// The shares add up to [`WHOLE`], but for what is lost by rounding down, or all are 0.
pub(super) fn share_out(offers: &[Offer]) -> Vec<u32> {
    let mut left = WHOLE;
    let mut shares = vec![0; offers.len()];
    for most in [|offer: &Offer| offer.eased, |offer: &Offer| offer.able] {
        for (share, offer) in shares.iter_mut().zip(offers) {
            let more = most(offer).saturating_sub(*share).min(left);
            *share += more;
            left -= more;
        }
    }
    in_proportion(&shares)
}

/// The same proportions in parts of [`WHOLE`]; all 0 where there is nothing to share.
pub(super) fn in_proportion(parts: &[u32]) -> Vec<u32> {
    let sum: u64 = parts.iter().map(|&part| u64::from(part)).sum();
    let scaled = |&part: &u32| (u64::from(part) * u64::from(WHOLE)).checked_div(sum).unwrap_or(0);
    parts.iter().map(|part| u32::try_from(scaled(part)).unwrap_or(WHOLE)).collect()
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Envoy's formulas for the load of priority levels, in percent.
    fn naive(groups: &[(usize, usize)], factor: f64) -> Vec<f64> {
        let health = |&(ready, total): &(usize, usize)| {
            if total == 0 { 0.0 } else { (ready as f64 / total as f64 * factor).min(100.0) }
        };
        let health: Vec<f64> = groups.iter().map(health).collect();
        let normalised = health.iter().sum::<f64>().min(100.0);
        let mut loads: Vec<f64> = Vec::new();
        for healthy in health {
            let before: f64 = loads.iter().sum();
            let load = if normalised == 0.0 { 0.0 } else { healthy * 100.0 / normalised };
            loads.push(load.min(100.0 - before));
        }
        loads
    }

    fn groups() -> impl Strategy<Value = Vec<(usize, usize)>> {
        vec((0..30_usize).prop_flat_map(|total| (0..=total, Just(total))), 1..6)
    }

    proptest! {
        #[test]
        fn shares_are_those_of_envoys_priority_levels(groups in groups(), factor in 100..300_u32) {
            let offer = |&(ready, total): &(usize, usize)| {
                let able = capacity(ready, total, factor);
                Offer { able, eased: able }
            };
            let shares = share_out(&groups.iter().map(offer).collect::<Vec<_>>());
            for (share, load) in shares.iter().zip(naive(&groups, f64::from(factor))) {
                prop_assert!((f64::from(*share) / 10_000.0 - load).abs() < 0.01, "{groups:?}: {shares:?}");
            }
        }

        #[test]
        fn groups_that_are_held_back_take_only_what_others_cannot(offers in vec((0..=WHOLE, 0..=100_u32), 1..6)) {
            let offers: Vec<_> =
                offers.into_iter().map(|(able, eased)| Offer { able, eased: able / 100 * eased }).collect();
            let shares = share_out(&offers);
            let sum = |part: fn(&Offer) -> u32| offers.iter().map(|offer| u64::from(part(offer))).sum::<u64>();
            let whole = u64::from(WHOLE);
            for (share, offer) in shares.iter().zip(&offers) {
                if sum(|offer| offer.eased) >= whole {
                    prop_assert!(*share <= offer.eased);
                } else if sum(|offer| offer.able) >= whole {
                    prop_assert!((offer.eased..=offer.able).contains(share));
                }
            }
            let total: u64 = shares.iter().map(|&share| u64::from(share)).sum();
            prop_assert!(total + offers.len() as u64 >= whole || sum(|offer| offer.able) == 0);
            prop_assert!(total <= whole);
        }
    }
}
