//! The dynamic table (RFC 7541, 2.3.2 and section 4), which encoder and decoder both keep.

use std::collections::VecDeque;

use crate::fields::OVERHEAD;

/// Fields that were inserted, newest first; the oldest go when there is no room.
///
/// Their bytes lie one behind the other in one buffer. Inserting appends to it; when it is full and the fields that have
/// gone left enough at its front, the others move there. So inserting costs a copy or two, and no allocation each.
#[derive(Debug)]
pub(super) struct DynamicTable {
    bytes: Vec<u8>,
    /// Newest first.
    entries: VecDeque<Span>,
    /// The position of the first byte in `bytes`. Positions count all bytes ever inserted, modulo 2³².
    base: u32,
    /// The serial number that the next entry will have. They count all entries ever inserted, modulo 2¹⁶.
    next: u16,
    size: usize,
    max: usize,
}

/// Where an entry lies: its name, and its value right behind.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    name: u32,
    value: u32,
}

/// An entry of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Its name, and its value right behind.
    pub(super) joined: &'a [u8],
    /// The length of the name.
    pub(super) name: usize,
}

impl<'a> Entry<'a> {
    #[inline]
    pub(super) fn name(&self) -> &'a [u8] {
        &self.joined[..self.name]
    }

    /// Whether this is the entry of such a field.
    #[inline]
    pub(super) fn is(&self, name: &[u8], value: &[u8]) -> bool {
        self.name == name.len() && self.joined.len() == name.len() + value.len() && {
            let (own_name, own_value) = self.joined.split_at(self.name);
            own_name == name && own_value == value
        }
    }
}

impl DynamicTable {
    /// An empty table of at most `max` bytes, which allocates nothing yet.
    pub(super) const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), base: 0, next: 0, size: 0, max }
    }

    /// The most bytes the table may have, as RFC 7541 counts them (4.1).
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// Changes the most bytes the table may have; entries that no longer fit go.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
    }

    /// The entry at `place`, the newest being at 0.
    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<Entry<'_>> {
        let span = self.entries.get(place)?;
        let start = span.start.wrapping_sub(self.base) as usize;
        let joined = &self.bytes[start..start + (span.name + span.value) as usize];
        Some(Entry { joined, name: span.name as usize })
    }

    /// The place of the entry that was inserted as the one of this serial number; no entry is there once it has gone.
    ///
    /// As these numbers come round again, it may be another entry, one inserted later.
    #[inline]
    pub(super) const fn place(&self, serial: u16) -> usize {
        self.next.wrapping_sub(1).wrapping_sub(serial) as usize
    }

    /// Whether an entry of this serial number is there.
    #[inline]
    pub(super) fn holds(&self, serial: u16) -> bool {
        self.place(serial) < self.entries.len()
    }

    /// The serial number that the next entry will have.
    pub(super) const fn next_serial(&self) -> u16 {
        self.next
    }

    /// A serial number whose entry has gone, or never was.
    #[expect(clippy::cast_possible_truncation, reason = "serial numbers are modulo 2^16")]
    pub(super) fn gone_serial(&self) -> u16 {
        self.next.wrapping_sub(1).wrapping_sub(self.entries.len() as u16)
    }

    /// Inserts an entry. One that is larger than the table empties it, and is not there (RFC 7541, 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        let Some(left) = self.max.checked_sub(size) else { return self.evict(0) };
        self.evict(left);
        self.make_room(name.len() + value.len());
        let start = self.base.wrapping_add(offset(self.bytes.len()));
        self.entries.push_front(Span { start, name: offset(name.len()), value: offset(value.len()) });
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += size;
        self.next = self.next.wrapping_add(1);
    }

    /// Lets the oldest entries go until at most `size` bytes are left.
    fn evict(&mut self, size: usize) {
        while self.size > size {
            let span = self.entries.pop_back().expect("a table without entries has no size");
            self.size -= (span.name + span.value) as usize + OVERHEAD;
        }
    }

    /// Moves what is left to the front rather than let the buffer grow, if a quarter of it is free for that.
    fn make_room(&mut self, more: usize) {
        let free = match self.entries.back() {
            Some(oldest) => oldest.start.wrapping_sub(self.base),
            None => offset(self.bytes.len()),
        };
        if self.bytes.len() + more > self.bytes.capacity() && free as usize > self.bytes.len() / 4 {
            self.bytes.drain(..free as usize);
            self.base = self.base.wrapping_add(free);
        }
    }
}

fn offset(length: usize) -> u32 {
    u32::try_from(length).expect("a table is below 4 GiB")
}

#[cfg(test)]
impl DynamicTable {
    /// What is in the table, newest first, and its size in bytes.
    pub(super) fn contents(&self) -> (Vec<(String, String)>, usize) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = (0..self.entries.len()).filter_map(|place| self.get(place));
        (entries.map(|entry| (text(entry.name()), text(&entry.joined[entry.name..]))).collect(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as the RFC tells it, with no thought of cost.
    struct Model(Vec<(Vec<u8>, Vec<u8>)>);

    impl Model {
        fn evict(&mut self, max: usize) {
            while self.0.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > max {
                self.0.pop();
            }
        }
    }

    #[test]
    fn the_table_holds_what_a_plain_list_does_and_its_buffer_stays_small() {
        let (mut table, mut model) = (DynamicTable::new(1000), Model(Vec::new()));
        for turn in 0..200_000_usize {
            let name = vec![b'n'; turn % 7];
            let value = vec![turn.to_le_bytes()[0]; turn * 31 % 97 + 400 * usize::from(turn % 1000 == 0)];
            let max = if turn % 5000 < 100 { 200 } else { 1000 };
            table.set_max(max);
            table.insert(&name, &value);
            model.0.insert(0, (name, value));
            model.evict(max);
            for place in [0, 1, model.0.len().saturating_sub(1), model.0.len()] {
                let same = match (table.get(place), model.0.get(place)) {
                    (Some(entry), Some((name, value))) => entry.is(name, value) && entry.name() == name,
                    (entry, expected) => entry.is_none() && expected.is_none(),
                };
                assert!(same, "turn {turn}");
            }
            assert_eq!((table.entries.len(), table.max()), (model.0.len(), max));
        }
        assert!(table.bytes.capacity() <= 2700, "{}", table.bytes.capacity());
    }

    #[test]
    fn entries_are_found_by_serial_number_until_they_go() {
        let mut table = DynamicTable::new(3 * 33);
        assert!(!table.holds(table.gone_serial()));
        for turn in 0..70_000 {
            let serial = table.next_serial();
            table.insert(b"", b"v");
            assert!(table.holds(serial) && table.place(serial) == 0);
            assert!(!table.holds(table.gone_serial()) && !table.holds(table.next_serial()));
            assert!(turn < 2 || table.holds(serial.wrapping_sub(2)) && !table.holds(serial.wrapping_sub(3)));
        }
    }

    #[test]
    fn an_entry_larger_than_the_table_empties_it() {
        let mut table = DynamicTable::new(64);
        table.insert(b"a", b"b");
        table.insert(b"name", &[b'v'; 29]);
        assert_eq!(table.contents(), (vec![], 0));
        table.insert(b"name", &[b'v'; 28]);
        assert_eq!(table.contents().1, 64);
    }
}
