//! What an encoder remembers of the fields it saw lately.

use super::dynamic_table::{DynamicTable, Entry};

/// Hashes of fields and of names, with the serial number of the dynamic table's entry that has them, if there is one.
///
/// A few places for each hash, in the order of their use: what is not in the table makes way for newer ones, so that a
/// field that comes again after some two hundred others that never do is still known. Nothing here is ever trusted but
/// the bytes in the table: a lost or a wrong place costs compression alone.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Allocated at the first look.
    sets: Option<Box<[Set; SETS]>>,
}

/// 64 sets of 4 places: twice as many as a table of 4096 bytes can have entries, in 1 KiB.
const SETS: usize = 64;
type Set = [Place; 4];

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// A part of the hash; 0 is free.
    tag: u16,
    /// The entry that has this hash, unless it is gone.
    serial: u16,
}

/// What is known of a field or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nothing.
    First,
    /// It came lately, and is not in the table.
    Again,
    /// It is in the table, at this place.
    Entry(usize),
}

impl Recent {
    /// What is known of whatever has this `hash`; an entry of the table is it if `is_it` says so.
    #[inline]
    pub(super) fn look(&self, hash: u64, table: &DynamicTable, is_it: impl Fn(Entry<'_>) -> bool) -> Sight {
        let Some(sets) = &self.sets else { return Sight::First };
        let (set, tag) = set_and_tag(hash);
        let mut sight = Sight::First;
        for place in sets[set].iter().filter(|place| place.tag == tag) {
            let at = table.place(place.serial);
            match table.get(at) {
                Some(entry) if is_it(entry) => return Sight::Entry(at),
                Some(_) => {}
                None => sight = Sight::Again,
            }
        }
        sight
    }

    /// Notes that whatever has this `hash` came, and is, or will be, the table's entry of this serial number.
    pub(super) fn note(&mut self, hash: u64, serial: u16, table: &DynamicTable) {
        let (set, tag) = set_and_tag(hash);
        let set = &mut self.sets.get_or_insert_with(|| Box::new([Set::default(); SETS]))[set];
        let same = set.iter().position(|place| place.tag == tag);
        let least = || set.iter().rposition(|place| place.tag == 0 || !table.holds(place.serial));
        let at = same.or_else(least).unwrap_or(set.len() - 1);
        set[..=at].rotate_right(1);
        set[0] = Place { tag, serial };
    }
}

fn set_and_tag(hash: u64) -> (usize, u16) {
    let [upper, middle, lower, ..] = hash.to_be_bytes();
    (usize::from(upper) % SETS, u16::from_be_bytes([middle, lower]).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sights_go_from_first_to_again_to_entry_and_back() {
        let (mut recent, mut table) = (Recent::default(), DynamicTable::new(2 * 34));
        let look = |recent: &Recent, table: &DynamicTable| recent.look(77, table, |entry| entry.name() == b"a");
        assert_eq!(look(&recent, &table), Sight::First);
        recent.note(77, table.gone_serial(), &table);
        assert_eq!(look(&recent, &table), Sight::Again);
        recent.note(77, table.next_serial(), &table);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert_eq!(look(&recent, &table), Sight::Entry(1));
        table.insert(b"c", b"3");
        assert_eq!(look(&recent, &table), Sight::Again);
    }

    #[test]
    fn what_is_in_the_table_outlasts_what_is_not_and_the_latest_is_known() {
        let (mut recent, mut table) = (Recent::default(), DynamicTable::new(4096));
        // All of one set.
        let hash = |n: u64| n << 40;
        recent.note(hash(1), table.next_serial(), &table);
        table.insert(b"a", b"1");
        for n in 2..100 {
            recent.note(hash(n), table.gone_serial(), &table);
            for back in 0..3.min(n - 1) {
                assert_eq!(recent.look(hash(n - back), &table, |_| false), Sight::Again);
            }
            assert_eq!(recent.look(hash(1), &table, |entry| entry.name() == b"a"), Sight::Entry(0));
        }
        assert_eq!(recent.look(hash(2), &table, |_| false), Sight::First);
    }
}
