use std::sync::Arc;

use crate::Endpoint;

/// Names one leaf for as long as its endpoint is listed.
pub(super) type LeafId = u32;

/// What became of the leaves when a list came.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listing {
    /// In the order of the list, without duplicates.
    pub(super) listed: Vec<LeafId>,
    /// Those of them that are new, or whose addresses are in another order than before.
    pub(super) changed: Vec<LeafId>,
    /// Not listed any more: to be [removed](super::leaves::Leaves::remove).
    pub(super) gone: Vec<LeafId>,
}

/// A list that another one replaces, entry by entry.
///
/// Most lists differ from the one before in a few places. Where an entry is the one that is expected next, comparing
/// the two is all that it costs.
#[derive(Debug)]
pub(super) struct Previous {
    entries: Vec<(LeafId, Arc<Endpoint>)>,
    seen: Vec<bool>,
    /// Which entry is expected next.
    cursor: usize,
    /// Where each leaf's entry is, in the order of the ids; made when first needed.
    places: Option<Vec<(LeafId, usize)>>,
}

impl Previous {
    pub(super) fn new(entries: Vec<(LeafId, Arc<Endpoint>)>) -> Self {
        Self { seen: vec![false; entries.len()], entries, cursor: 0, places: None }
    }

    /// The next entry, if it is this endpoint to the letter, and for the first time.
    pub(super) fn next_if(&mut self, endpoint: &Endpoint) -> Option<(LeafId, Arc<Endpoint>)> {
        let (id, known) = self.entries.get(self.cursor)?;
        if self.seen[self.cursor] || **known != *endpoint {
            return None;
        }
        let entry = (*id, Arc::clone(known));
        self.seen[self.cursor] = true;
        self.cursor += 1;
        Some(entry)
    }

    /// The endpoint that the leaf had, if it is met for the first time. Goes on from there.
    pub(super) fn meet(&mut self, id: LeafId) -> Option<Arc<Endpoint>> {
        let at = self.place(id).filter(|&at| !self.seen[at])?;
        self.seen[at] = true;
        self.cursor = at + 1;
        Some(Arc::clone(&self.entries[at].1))
    }

    fn place(&mut self, id: LeafId) -> Option<usize> {
        let places = self.places.get_or_insert_with(|| {
            let mut places: Vec<_> = self.entries.iter().enumerate().map(|(at, &(id, _))| (id, at)).collect();
            places.sort_unstable();
            places
        });
        let found = places.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(places[found].1)
    }

    /// What the new list did not name.
    pub(super) fn gone(self) -> impl Iterator<Item = (LeafId, Arc<Endpoint>)> {
        self.entries.into_iter().zip(self.seen).filter_map(|(entry, seen)| (!seen).then_some(entry))
    }
}
