use serde::Deserialize;

use super::{
    Context, Policies, PolicyFactory,
    hashing::{Bound, Hashing, Layout, Member, RequestKey, Settings, Table},
    ring_hash::uint64,
};
use crate::{ConfigError, xxhash::xxh64};

/// No table may be larger (xDS has the same limit).
const LARGEST: u64 = 5_000_011;
const DEFAULT: u64 = 65_537;

/// `maglev` (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016): calls of one key go
/// to one endpoint, and endpoints share the keys almost evenly.
///
/// Endpoints take turns in filling a table, each by a permutation of its own, and a key belongs to the endpoint that
/// has its slot. That is more even than a ring and faster to look up; an endpoint that comes or goes moves a few keys
/// of others as well, about half as many again as its own.
///
/// Unlike `ring_hash`, it keeps every endpoint connected, and a call never waits for the endpoint of its key while
/// another is ready. An endpoint that is out keeps its slots, so that nobody else's keys move: its own walk on through
/// the table, which spreads them over all others, and are back when it is. Calls without a key go to a random endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Maglev;

/// The config of `maglev`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct MaglevConfig {
    /// Slots in the table: a prime of at most 5 000 011; a hundred times the number of endpoints keeps their shares
    /// within 1 %. Filling it takes some 5 ms at the default and 2 s at the largest, in which the channel decides nothing
    /// else. With fewer slots than endpoints it is the next prime that has one for each. Default 65 537, also for 0.
    #[serde(deserialize_with = "uint64")]
    pub table_size: u64,
    /// As in `ring_hash`: [`RingHashConfig::request_hash_header`](super::RingHashConfig::request_hash_header).
    pub request_hash_header: String,
    /// As in `ring_hash`: [`RingHashConfig::hash_balance_factor`](super::RingHashConfig::hash_balance_factor).
    pub hash_balance_factor: u32,
}

impl Default for MaglevConfig {
    fn default() -> Self {
        Self { table_size: DEFAULT, request_hash_header: String::new(), hash_balance_factor: 0 }
    }
}

impl MaglevConfig {
    fn settings(&self) -> Result<Settings<MaglevLayout>, ConfigError> {
        let refuse = |problem: String| Err(ConfigError::new("tableSize", problem));
        let size = match self.table_size {
            0 => DEFAULT,
            size if size > LARGEST => return refuse(format!("is {size}, must be at most {LARGEST}")),
            size if !is_prime(size) => {
                return refuse(format!("is {size}, must be a prime, such as {}", next_prime(size).min(LARGEST)));
            }
            size => size,
        };
        Ok(Settings {
            layout: MaglevLayout { size },
            key: RequestKey::by_header(&self.request_hash_header)?,
            bound: Bound::of(self.hash_balance_factor)?,
        })
    }
}

impl PolicyFactory for Maglev {
    const NAME: &'static str = "maglev";
    type Config = MaglevConfig;
    type Policy = Hashing<MaglevLayout>;

    fn build(&self, config: MaglevConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Hashing::new(config.settings()?))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: MaglevConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        policy.reconfigure(config.settings()?);
        Ok(())
    }
}

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaglevLayout {
    /// A prime, so that every step through the table comes by every slot.
    size: u64,
}

impl Layout for MaglevLayout {
    type Table = Slots;

    const LAZY: bool = false;

    fn lay_out(&self, members: &[Member]) -> Slots {
        let size = next_prime(self.size.max(members.len() as u64));
        let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(1);
        let mut fillers: Vec<_> = members.iter().map(|member| Filler::new(member, size, heaviest)).collect();
        let mut slots = vec![VACANT; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut vacant = slots.len();
        while vacant > 0 {
            for (index, filler) in (0..).zip(&mut fillers) {
                if vacant > 0 && filler.has_turn(heaviest) {
                    filler.take_slot(&mut slots, index, size);
                    vacant -= 1;
                }
            }
        }
        Slots(slots)
    }
}

const VACANT: u32 = u32::MAX;

/// An endpoint while it fills its slots.
struct Filler {
    weight: u64,
    /// Weight saved up: a turn costs that of the heaviest.
    saved: u64,
    /// The slot that it would like next.
    slot: u64,
    /// From each slot to the next one; below the size and above 0.
    step: u64,
}

impl Filler {
    fn new(member: &Member, size: u64, heaviest: u32) -> Self {
        let key = member.key.as_bytes();
        // A table of two slots has steps of 1 alone.
        let step = xxh64(key, 1) % (size - 1) + 1;
        let weight = u64::from(member.weight);
        // Everyone has a turn in the first round, so that nobody goes away empty-handed.
        Self { weight, saved: u64::from(heaviest) - weight, slot: xxh64(key, 0) % size, step }
    }

    fn has_turn(&mut self, heaviest: u32) -> bool {
        self.saved += self.weight;
        let turn = self.saved >= u64::from(heaviest);
        if turn {
            self.saved -= u64::from(heaviest);
        }
        turn
    }

    /// There has to be a vacant one.
    fn take_slot(&mut self, slots: &mut [u32], owner: u32, size: u64) {
        loop {
            // Below the size, which is that of a vector in memory.
            let index = usize::try_from(self.slot).unwrap_or_default();
            self.slot = (self.slot + self.step) % size;
            if slots[index] == VACANT {
                slots[index] = owner;
                return;
            }
        }
    }
}

/// The least prime that is not below `n`.
fn next_prime(n: u64) -> u64 {
    let mut prime = n.max(2);
    while !is_prime(prime) {
        prime += 1;
    }
    prime
}

fn is_prime(n: u64) -> bool {
    n >= 2 && !(2..=n.isqrt()).any(|divisor| n.is_multiple_of(divisor))
}

/// Which endpoint has which slot.
#[derive(Debug, PartialEq)]
pub struct Slots(Vec<u32>);

impl Table for Slots {
    fn place(&self, hash: u64) -> usize {
        // Below the length, which is a usize.
        usize::try_from(hash % self.0.len() as u64).unwrap_or_default()
    }

    fn owners(&self) -> &[u32] {
        &self.0
    }

    fn shares(&self, members: usize) -> Vec<f64> {
        let mut slots = vec![0_u32; members];
        for &owner in &self.0 {
            slots[owner as usize] += 1;
        }
        #[allow(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 slots")]
        let total = self.0.len() as f64;
        slots.into_iter().map(|own| f64::from(own) / total).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let members = weights.iter().enumerate();
        members.map(|(n, &weight)| Member { key: format!("10.0.0.{n}:50051"), weight }).collect()
    }

    fn spread(shares: &[f64], fair: impl Fn(usize) -> f64) -> (f64, f64) {
        let relative = shares.iter().enumerate().map(|(n, &share)| share / fair(n));
        relative.fold((f64::INFINITY, 0.0), |(least, most), share| (f64::min(least, share), f64::max(most, share)))
    }

    #[test]
    fn shares_are_almost_even() {
        let shares = MaglevLayout { size: DEFAULT }.lay_out(&members(&[1; 100])).shares(100);
        let (least, most) = spread(&shares, |_| 0.01);
        assert!(least > 0.998 && most < 1.001, "{least} to {most}; published are 0.999 and 1.001");
    }

    #[test]
    fn shares_are_by_weight() {
        let weights = [1, 2, 3, 10, 100];
        let shares = MaglevLayout { size: DEFAULT }.lay_out(&members(&weights)).shares(5);
        let (least, most) = spread(&shares, |n| f64::from(weights[n]) / 116.0);
        assert!(least > 0.99 && most < 1.01, "{least} to {most}");
    }

    #[test]
    fn removing_one_of_a_hundred_moves_a_hundredth_and_a_half_of_the_keys() {
        let (all, mut fewer) = (members(&[1; 100]), members(&[1; 100]));
        fewer.remove(40);
        let layout = MaglevLayout { size: DEFAULT };
        let (before, after) = (layout.lay_out(&all), layout.lay_out(&fewer));
        let slots = before.0.iter().zip(&after.0);
        let moved = slots.filter(|&(&old, &new)| all[old as usize] != fewer[new as usize]).count();
        let per_mille = moved * 1_000 / before.0.len();
        assert!((12..=19).contains(&per_mille), "{per_mille} ‰ moved; published are 15.4");
    }

    #[test]
    fn every_endpoint_has_a_slot_however_light_and_however_many_there_are() {
        let light = MaglevLayout { size: 101 }.lay_out(&members(&[1, 1_000_000, 1]));
        assert!(light.shares(3).iter().all(|&share| share > 0.0));
        let many = MaglevLayout { size: 3 }.lay_out(&members(&[1; 12]));
        assert_eq!(many.0.len(), 13);
        assert!(many.shares(12).iter().all(|&share| share > 0.0));
    }

    /// The algorithm as the paper has it: whole permutations, and turns.
    fn from_the_paper(keys: &[Member], size: usize) -> Vec<u32> {
        let wide = |n: usize| n as u64;
        let preferences: Vec<Vec<usize>> = keys
            .iter()
            .map(|member| {
                let offset = xxh64(member.key.as_bytes(), 0) % wide(size);
                let skip = xxh64(member.key.as_bytes(), 1) % (wide(size) - 1) + 1;
                (0..wide(size)).map(|j| usize::try_from((offset + j * skip) % wide(size)).unwrap()).collect()
            })
            .collect();
        let mut table = vec![None; size];
        for turn in 0.. {
            let index = turn % keys.len();
            let Some(&slot) = preferences[index].iter().find(|&&slot| table[slot].is_none()) else { break };
            table[slot] = u32::try_from(index).ok();
        }
        table.into_iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn equal_weights_fill_the_table_as_the_paper_does(
            n in 1..20_usize,
            weight in 1..5_u32,
            size in prop::sample::select(vec![23_u64, 101, 251]),
        ) {
            let members = members(&vec![weight; n]);
            let expected = from_the_paper(&members, usize::try_from(size).unwrap());
            prop_assert_eq!(MaglevLayout { size }.lay_out(&members).0, expected);
        }

        #[test]
        fn slots_are_in_proportion_to_weights(weights in vec(1..20_u32, 1..12)) {
            let shares = MaglevLayout { size: 10_007 }.lay_out(&members(&weights)).shares(weights.len());
            let total: u32 = weights.iter().sum();
            for (share, &weight) in shares.iter().zip(&weights) {
                let fair = f64::from(weight) / f64::from(total);
                prop_assert!((share - fair).abs() < 0.003, "{} for {}", share, fair);
            }
        }

        #[test]
        fn primes_are_told_from_others(n in 0..20_000_u64) {
            prop_assert_eq!(is_prime(n), n >= 2 && (2..n).all(|divisor| !n.is_multiple_of(divisor)));
            let next = next_prime(n);
            prop_assert!(next >= n && is_prime(next) && (n.max(2)..next).all(|between| !is_prime(between)));
        }
    }

    #[test]
    fn the_largest_size_is_a_prime() {
        assert!(is_prime(LARGEST) && is_prime(DEFAULT));
    }
}
