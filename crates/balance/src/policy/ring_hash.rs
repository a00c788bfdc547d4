use std::fmt::{self, Write as _};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use super::{
    Context, Policies, PolicyFactory,
    hashing::{Bound, Hashing, Layout, Member, RequestKey, Settings, Table},
};
use crate::{ConfigError, xxhash::Xxh64};

/// No ring may be larger (gRFC A42).
const LARGEST: u64 = 8 * 1024 * 1024;
const DEFAULT_MIN: u64 = 1024;
const DEFAULT_MAX: u64 = 4096;

/// `ring_hash` (gRFC A42, A61, A76): calls of one key go to one endpoint, which is connected when the first of them
/// comes.
///
/// Endpoints and keys are hashed onto a ring, and a key belongs to the next endpoint on it. An endpoint that comes or
/// goes moves only the keys that it gains or loses. A call waits for the endpoint of its key while that is being
/// connected, and walks on along the ring while it is out. A call without a key goes to a random ready endpoint.
#[derive(Clone, Copy, Debug)]
pub struct RingHash {
    cap: u64,
}

impl RingHash {
    /// Takes larger rings than `entries` as rings of `entries`, whatever a config asks for: it is the client that has
    /// to find the memory, some 20 bytes an entry. Default 4096; at most 8 388 608.
    pub fn capped_at(entries: u64) -> Self {
        Self { cap: entries.clamp(1, LARGEST) }
    }
}

impl Default for RingHash {
    fn default() -> Self {
        Self::capped_at(DEFAULT_MAX)
    }
}

/// The config of `ring_hash`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct RingHashConfig {
    /// Entries on the ring, at least. More of them share out the keys more evenly. Default 1024, also for 0; above
    /// 8 388 608 or `maxRingSize` is refused.
    #[serde(deserialize_with = "uint64")]
    pub min_ring_size: u64,
    /// Entries on the ring, at most, except that every endpoint has one. Default 4096, also for 0; above 8 388 608 is
    /// refused. Both sizes are cut to the client's own cap: [`RingHash::capped_at`].
    #[serde(deserialize_with = "uint64")]
    pub max_ring_size: u64,
    /// The header that has the key of a call for which the caller gave none. Several values are joined by commas. A
    /// binary header (`-bin`) is refused. Default: none.
    pub request_hash_header: String,
    /// How much of its fair share of the calls in flight an endpoint may have, in percent; calls of its keys then walk
    /// on. 125 is a good start; below 100 is refused. Default 0: no bound.
    pub hash_balance_factor: u32,
}

impl Default for RingHashConfig {
    fn default() -> Self {
        Self {
            min_ring_size: DEFAULT_MIN,
            max_ring_size: DEFAULT_MAX,
            request_hash_header: String::new(),
            hash_balance_factor: 0,
        }
    }
}

impl RingHashConfig {
    fn settings(&self, cap: u64) -> Result<Settings<RingLayout>, ConfigError> {
        let size = |name: &str, value: u64, default: u64| match value {
            0 => Ok(default),
            1..=LARGEST => Ok(value),
            _ => Err(ConfigError::new(name, format!("is {value}, must be at most {LARGEST}"))),
        };
        let min = size("minRingSize", self.min_ring_size, DEFAULT_MIN)?;
        let max = size("maxRingSize", self.max_ring_size, DEFAULT_MAX)?;
        if min > max {
            return Err(ConfigError::new("minRingSize", format!("is {min}, must be at most maxRingSize, {max}")));
        }
        Ok(Settings {
            layout: RingLayout { min: min.min(cap), max: max.min(cap) },
            key: RequestKey::by_header(&self.request_hash_header)?,
            bound: Bound::of(self.hash_balance_factor)?,
        })
    }
}

/// An integer of 64 bits as protobuf's JSON has it: a number, or its digits in a string.
pub(super) fn uint64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Uint64;

    impl Visitor<'_> for Uint64 {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer from 0 up, as a number or a string")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_str<E: Error>(self, digits: &str) -> Result<u64, E> {
            digits.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(digits), &self))
        }
    }

    deserializer.deserialize_any(Uint64)
}

impl PolicyFactory for RingHash {
    const NAME: &'static str = "ring_hash";
    const ALIASES: &'static [&'static str] = &["ring_hash_experimental"];
    type Config = RingHashConfig;
    type Policy = Hashing<RingLayout>;

    fn build(&self, config: RingHashConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Hashing::new(config.settings(self.cap)?))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: RingHashConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        policy.reconfigure(config.settings(self.cap)?);
        Ok(())
    }
}

/// How large a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    min: u64,
    max: u64,
}

impl RingLayout {
    /// How many entries a unit of weight has, as a fraction: as few as give the least weight a whole number of entries
    /// and the ring its least size; and no more than its greatest.
    fn density(self, members: &[Member]) -> (u128, u128) {
        let total: u128 = members.iter().map(|member| u128::from(member.weight)).sum();
        let least = members.iter().map(|member| u128::from(member.weight)).min().unwrap_or(1);
        let entries = (least * u128::from(self.min)).div_ceil(total);
        if entries * total > u128::from(self.max) * least { (self.max.into(), total) } else { (entries, least) }
    }
}

impl Layout for RingLayout {
    type Table = Ring;

    const LAZY: bool = true;

    fn lay_out(&self, members: &[Member]) -> Ring {
        let (entries, weights) = self.density(members);
        let mut ring = Vec::new();
        let mut weight = 0;
        for (index, member) in (0..).zip(members) {
            weight += u128::from(member.weight);
            // Rounding carries over, so that it adds nothing up; but nobody goes away empty-handed.
            let end = (entries * weight).div_ceil(weights);
            let own = end.saturating_sub(ring.len() as u128).max(1);
            ring.extend(points(&member.key).take(usize::try_from(own).unwrap_or(usize::MAX)).map(|hash| (hash, index)));
        }
        ring.sort_unstable();
        Ring::of(&ring)
    }
}

/// Where an endpoint stands on the ring: the hash of its key with 0, with 1, and so on.
fn points(key: &str) -> impl Iterator<Item = u64> {
    let mut prefix = Xxh64::new(0);
    prefix.write(key.as_bytes());
    prefix.write(b"_");
    let mut digits = String::new();
    (0_u64..).map(move |n| {
        digits.clear();
        // Writing to a string never fails.
        let _ = write!(digits, "{n}");
        let mut hasher = prefix.clone();
        hasher.write(digits.as_bytes());
        hasher.finish()
    })
}

/// Entries by their hashes. A call belongs to the first entry that is not below its hash.
#[derive(Debug, PartialEq)]
pub struct Ring {
    /// In ascending order.
    hashes: Vec<u64>,
    owners: Vec<u32>,
    /// Where the entries begin whose upper bits are at least so much: hashes are evenly spread, so that this leaves
    /// about one entry to look at where a binary search would miss the cache at every step.
    begins: Vec<u32>,
    /// How many lower bits `begins` disregards.
    shift: u32,
}

impl Ring {
    /// A ring of `entries`, which are in ascending order.
    fn of(entries: &[(u64, u32)]) -> Self {
        let (hashes, owners): (Vec<u64>, _) = entries.iter().copied().unzip();
        let bits = hashes.len().next_power_of_two().trailing_zeros().clamp(1, 31);
        let shift = u64::BITS - bits;
        let mut next = 0;
        let begins = (0..1_u64 << bits).map(|upper| {
            while hashes.get(next as usize).is_some_and(|&hash| hash >> shift < upper) {
                next += 1;
            }
            next
        });
        let begins = begins.collect();
        Self { hashes, owners, begins, shift }
    }
}

impl Table for Ring {
    fn place(&self, hash: u64) -> usize {
        // The shift leaves at most 31 bits.
        let upper = usize::try_from(hash >> self.shift).unwrap_or_default();
        let begin = self.begins[upper] as usize;
        let end = self.begins.get(upper + 1).map_or(self.hashes.len(), |&end| end as usize);
        let place = begin + self.hashes[begin..end].partition_point(|&entry| entry < hash);
        if place == self.hashes.len() { 0 } else { place }
    }

    fn owners(&self) -> &[u32] {
        &self.owners
    }

    fn shares(&self, members: usize) -> Vec<f64> {
        let mut shares = vec![0.0; members];
        let mut from = self.hashes.last().copied().unwrap_or_default();
        for (&to, &owner) in self.hashes.iter().zip(&self.owners) {
            // Around the end of the hashes, the difference wraps as the ring does.
            #[allow(clippy::cast_precision_loss, reason = "a share is shown to a few digits")]
            let arc = to.wrapping_sub(from) as f64 / 2_f64.powi(64);
            shares[owner as usize] += if self.hashes.len() == 1 { 1.0 } else { arc };
            from = to;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::xxhash::xxh64;

    fn members(weights: &[u32]) -> Vec<Member> {
        let members = weights.iter().enumerate();
        members.map(|(n, &weight)| Member { key: format!("10.0.0.{n}:50051"), weight }).collect()
    }

    fn ring(min: u64, max: u64, weights: &[u32]) -> Ring {
        RingLayout { min, max }.lay_out(&members(weights))
    }

    fn entries(ring: &Ring, member: u32) -> usize {
        ring.owners.iter().filter(|&&owner| owner == member).count()
    }

    #[test]
    fn a42_the_least_weight_has_a_whole_number_of_entries() {
        assert_eq!(ring(1024, 4096, &[1; 100]).owners.len(), 1_100, "11 each, as 10 would be too few");
        let weighted = ring(10, 4096, &[1, 3]);
        assert_eq!((entries(&weighted, 0), entries(&weighted, 1)), (3, 9));
        assert_eq!(ring(1, 4096, &[7]).owners.len(), 1);
    }

    #[test]
    fn a42_a_ring_is_no_longer_than_its_greatest_size_but_leaves_nobody_out() {
        let clamped = ring(1024, 4096, &[1, 1_000_000]);
        assert_eq!((entries(&clamped, 0), entries(&clamped, 1)), (1, 4_095));
        let crowded = ring(4, 4, &[1; 10]);
        assert!((0..10).all(|member| entries(&crowded, member) == 1), "{crowded:?}");
    }

    #[test]
    fn a42_entries_are_hashes_of_the_key_with_a_number() {
        let ring = ring(3, 3, &[1]);
        let mut expected: Vec<_> = (0..3).map(|n| xxh64(format!("10.0.0.0:50051_{n}").as_bytes(), 0)).collect();
        expected.sort_unstable();
        assert_eq!(ring.hashes, expected);
    }

    /// The least and the greatest share of 100 endpoints, relative to the mean.
    fn spread(size: u64) -> (f64, f64) {
        let shares = ring(size, LARGEST, &[1; 100]).shares(100);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        shares.iter().fold((f64::INFINITY, 0.0), |(least, most), &share| {
            (f64::min(least, share * 100.0), f64::max(most, share * 100.0))
        })
    }

    #[test]
    fn larger_rings_are_more_even() {
        // Published for 100 endpoints: 0.40 and 1.93, 0.67 and 1.46, 0.90 and 1.10. The extremes depend on the keys.
        for (size, least, most) in [(1_024, 0.40, 1.93), (4_096, 0.67, 1.46), (65_536, 0.90, 1.10)] {
            let (low, high) = spread(size);
            assert!((low - least).abs() < 0.12 && (high - most).abs() < 0.25, "{size}: {low:.2} to {high:.2}");
        }
    }

    #[test]
    fn removing_an_endpoint_moves_only_its_own_keys() {
        let (all, mut fewer) = (members(&[1; 100]), members(&[1; 100]));
        fewer.remove(40);
        let layout = RingLayout { min: 1_100, max: LARGEST };
        let (before, after) = (layout.lay_out(&all), RingLayout { min: 1_089, ..layout }.lay_out(&fewer));
        for key in 0..20_000_u64 {
            let hash = xxh64(&key.to_le_bytes(), 0);
            let old = &all[before.owners[before.place(hash)] as usize];
            let new = &fewer[after.owners[after.place(hash)] as usize];
            assert!(old == new || *old == all[40], "{key} moved from {old:?} to {new:?}");
        }
    }

    proptest! {
        #[test]
        fn a_call_belongs_to_the_next_entry(
            weights in vec(1..9_u32, 1..12),
            min in 1..80_u64,
            hashes in vec(any::<u64>(), 1..40),
        ) {
            let ring = ring(min, LARGEST, &weights);
            let entries: Vec<_> = ring.hashes.iter().zip(&ring.owners).collect();
            for hash in hashes.into_iter().chain([0, u64::MAX, ring.hashes[0]]) {
                let next = entries.iter().filter(|entry| *entry.0 >= hash).min().or(entries.iter().min());
                prop_assert_eq!(ring.owners[ring.place(hash)], *next.unwrap().1);
            }
        }

        #[test]
        fn entries_are_in_proportion_to_weights(weights in vec(1..50_u32, 1..30), min in 1..3_000_u64) {
            let ring = ring(min, LARGEST, &weights);
            let least = *weights.iter().min().unwrap();
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let unit = (u64::from(least) * min).div_ceil(total);
            prop_assert_eq!(ring.owners.len() as u64, (unit * total).div_ceil(least.into()));
            for (member, &weight) in (0..).zip(&weights) {
                let fair = unit * u64::from(weight) / u64::from(least);
                let own = entries(&ring, member) as u64;
                prop_assert!(own.abs_diff(fair) <= 1, "{} for a fair share of {}", own, fair);
            }
        }
    }
}
