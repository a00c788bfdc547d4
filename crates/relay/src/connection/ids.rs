//! Ids of streams: where those lie that are open, and which of the others we have reset lately.

use std::collections::VecDeque;

/// Where each id lies: open addressing, in a table at most half full.
///
/// Ids come in order, so their low bits spread them better than any hash. A peer that picks them to collide makes a
/// lookup walk over as many places as it has streams, eight bytes each.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// As many as a power of two, or none.
    places: Vec<Place>,
    count: usize,
}

/// The size of the smallest table that is one.
const SMALLEST: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// 0 is free.
    id: u32,
    slot: u32,
}

impl Index {
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let place = self.places[self.walk(id)];
        (place.id == id).then_some(place.slot)
    }

    /// Where `id` lies, or the free place where it would.
    #[inline]
    fn walk(&self, id: u32) -> usize {
        let mask = self.places.len() - 1;
        let mut at = Self::home(id, mask);
        while self.places[at].id != id && self.places[at].id != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    const fn home(id: u32, mask: usize) -> usize {
        (id >> 1) as usize & mask
    }

    pub(super) fn insert(&mut self, id: u32, slot: u32) {
        if self.places.len() <= 2 * self.count {
            self.grow();
        }
        let at = self.walk(id);
        self.places[at] = Place { id, slot };
        self.count += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.places.len() * 2).max(SMALLEST);
        for place in std::mem::replace(&mut self.places, vec![Place::default(); size]) {
            if place.id != 0 {
                let at = self.walk(place.id);
                self.places[at] = place;
            }
        }
    }

    /// Frees the place of `id`, and moves those behind it up that would no longer be found.
    pub(super) fn remove(&mut self, id: u32) {
        let mask = self.places.len() - 1;
        let mut hole = self.walk(id);
        debug_assert_eq!(self.places[hole].id, id);
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place.id == 0 {
                break;
            }
            let distance = at.wrapping_sub(Self::home(place.id, mask)) & mask;
            if distance >= at.wrapping_sub(hole) & mask {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = Place::default();
        self.count -= 1;
    }
}

/// The streams that we reset lately: frames of theirs may still be under way and mean nothing.
///
/// Which ids were forgotten is known to be at or below a bound, so that a frame is called wrong only where it certainly
/// is.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Allocated at the first reset.
    recent: VecDeque<u32>,
    forgotten: u32,
}

/// How many are remembered.
const REMEMBERED: usize = 64;

impl Resets {
    pub(super) fn remember(&mut self, id: u32) {
        if self.recent.len() == REMEMBERED
            && let Some(id) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(id);
        }
        self.recent.push_back(id);
    }

    /// Whether we may have reset the stream.
    pub(super) fn may_contain(&self, id: u32) -> bool {
        id <= self.forgotten || self.recent.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_index_is_a_map(operations in prop::collection::vec((0u32..40, any::<bool>()), 0..200)) {
            let (mut index, mut model) = (Index::default(), HashMap::new());
            for ((id, inserts), nth) in operations.into_iter().zip(0..) {
                // Ids that collide in small tables.
                let id = 1 + 2 * (id % 5 + 32 * (id / 5));
                if inserts && !model.contains_key(&id) {
                    index.insert(id, nth);
                    model.insert(id, nth);
                } else if !inserts && model.remove(&id).is_some() {
                    index.remove(id);
                }
                prop_assert_eq!(index.get(id), model.get(&id).copied());
            }
            for id in (1..600).step_by(2) {
                prop_assert_eq!(index.get(id), model.get(&id).copied());
            }
        }
    }

    #[test]
    fn resets_are_remembered_exactly_until_they_are_too_many() {
        let mut resets = Resets::default();
        (0..REMEMBERED).zip((1..).step_by(4)).for_each(|(_, id)| resets.remember(id));
        assert!(resets.may_contain(1) && !resets.may_contain(3));
        resets.remember(1001);
        assert!(resets.may_contain(1) && !resets.may_contain(3));
        resets.remember(1005);
        assert!(resets.may_contain(3), "below what was forgotten nothing is certain");
    }
}
