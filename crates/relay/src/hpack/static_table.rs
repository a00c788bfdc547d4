//! The static table (RFC 7541, appendix A), and its look-ups, which are built when this is compiled.

use super::dynamic_table::Entry;
use super::hash::hash;

/// The number of entries; indices of the dynamic table go on from here.
pub(super) const LEN: usize = 61;

/// Names and values; those of one name follow each other.
const ENTRIES: [(&str, &str); LEN] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The entry at `index`, which counts from 1.
#[inline]
pub(super) fn entry(index: usize) -> Entry<'static> {
    let (start, name) = (STARTS[index], NAME_LENGTHS[index] as usize);
    Entry { joined: &BYTES[start..STARTS[index + 1]], name }
}

/// The index of the first entry of this name, whose hash with seed 0 is `hash`.
#[inline]
pub(super) fn find_name(hash: u64, wanted: &[u8]) -> Option<usize> {
    let mut slot = slot(hash);
    loop {
        match SLOTS[slot] {
            0 => return None,
            index if entry(index.into()).name() == wanted => return Some(index.into()),
            _ => slot = (slot + 1) % SLOTS.len(),
        }
    }
}

/// The index of the entry that has this value and the name of the entry at `first`, the first of its name.
#[inline]
pub(super) fn find_value(first: usize, value: &[u8]) -> Option<usize> {
    (first..RUN_ENDS[first].into()).find(|&index| entry(index).joined[NAME_LENGTHS[first] as usize..] == *value)
}

/// Names and values, one behind the other.
static BYTES: [u8; STARTS[LEN + 1]] = {
    let mut bytes = [0; STARTS[LEN + 1]];
    let mut at = 0;
    while at < LEN {
        let (name, value) = (ENTRIES[at].0.as_bytes(), ENTRIES[at].1.as_bytes());
        let (_, room) = bytes.split_at_mut(STARTS[at + 1]);
        room.split_at_mut(name.len()).0.copy_from_slice(name);
        room.split_at_mut(name.len()).1.split_at_mut(value.len()).0.copy_from_slice(value);
        at += 1;
    }
    bytes
};

/// Where the entries begin in `BYTES`. Index 0 stands for nothing, so that indices need no subtraction.
const STARTS: [usize; LEN + 2] = {
    let mut starts = [0; LEN + 2];
    let mut at = 0;
    while at < LEN {
        starts[at + 2] = starts[at + 1] + ENTRIES[at].0.len() + ENTRIES[at].1.len();
        at += 1;
    }
    starts
};

/// The lengths of the entries' names.
const NAME_LENGTHS: [u8; LEN + 1] = {
    let mut lengths = [0; LEN + 1];
    let mut at = 0;
    while at < LEN {
        lengths[at + 1] = byte(ENTRIES[at].0.len());
        at += 1;
    }
    lengths
};

/// By the index of the first entry of a name: the index behind the last one.
static RUN_ENDS: [u8; LEN + 1] = {
    let mut ends = [0; LEN + 1];
    let mut first = 0;
    while first < LEN {
        let mut end = first;
        while end < LEN && same(ENTRIES[end].0, ENTRIES[first].0) {
            end += 1;
        }
        ends[first + 1] = byte(end + 1);
        first += 1;
    }
    ends
};

/// Indices of the first entries of names, each where its hash says or in the next free place behind.
static SLOTS: [u8; 256] = {
    let mut slots = [0; 256];
    let mut at = 0;
    while at < LEN {
        if at == 0 || !same(ENTRIES[at].0, ENTRIES[at - 1].0) {
            let mut slot = slot(hash(0, ENTRIES[at].0.as_bytes()));
            while slots[slot] != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = byte(at + 1);
        }
        at += 1;
    }
    slots
};

const fn slot(hash: u64) -> usize {
    hash.to_be_bytes()[0] as usize
}

const fn byte(index: usize) -> u8 {
    assert!(index < 256);
    index.to_le_bytes()[0]
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_name_and_value() {
        for index in 1..=LEN {
            let (name, value) = entry(index).joined.split_at(entry(index).name);
            assert_eq!((name, value), (ENTRIES[index - 1].0.as_bytes(), ENTRIES[index - 1].1.as_bytes()));
            let first = find_name(hash(0, name), name).unwrap();
            assert!(first <= index && entry(first).name() == name && entry(first - 1).name() != name);
            assert_eq!(find_value(first, value), Some(index));
            assert_eq!(find_value(first, b"other"), None);
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in [&b""[..], b"te", b":patH", b"grpc-timeout", b"grpc-status", b"accep"] {
            assert_eq!(find_name(hash(0, name), name), None);
        }
    }
}
