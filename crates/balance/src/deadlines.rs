use std::collections::{BTreeMap, BTreeSet};

use crate::Time;

/// When each of many is next to be woken, if at all.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    by_key: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Deadlines<K> {
    /// Wakes `key` at `at`, in place of any earlier deadline of its; `None` for not at all.
    pub(crate) fn set(&mut self, key: K, at: Option<Time>) {
        let before = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The first deadline.
    pub(crate) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Whose deadline has passed, in the order of their keys. They keep it until another is set.
    pub(crate) fn due(&self, now: Time) -> Vec<K> {
        let mut due: Vec<_> = self.by_time.iter().take_while(|&&(at, _)| at <= now).map(|&(_, key)| key).collect();
        due.sort_unstable();
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_scan_over_all(steps in vec((0..8_u8, option::of(0..20_u64)), 0..60), now in 0..20_u64) {
            let now = Time::from_nanos(now);
            let (mut deadlines, mut naive) = (Deadlines::default(), BTreeMap::new());
            for (key, at) in steps {
                let at = at.map(Time::from_nanos);
                deadlines.set(key, at);
                naive.insert(key, at);
                prop_assert_eq!(deadlines.next(), naive.values().copied().flatten().min());
                let due = naive.iter().filter(|(_, at)| at.is_some_and(|at| at <= now)).map(|(&key, _)| key);
                prop_assert_eq!(deadlines.due(now), due.collect::<Vec<_>>());
            }
        }
    }
}
