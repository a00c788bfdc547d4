//! From header lists to header blocks.

use super::recent::{Recent, Sight};
use super::{DEFAULT_TABLE, Form, HUFFMAN, INDEXED, INSERTED, NEVER_INDEXED, NOT_INDEXED, PLAIN, SIZE_UPDATE};
use super::{dynamic_table::DynamicTable, hash::hash, huffman, integer, static_table};
use crate::fields::Field;

/// Encodes the header blocks of one direction of a connection.
///
/// A field goes into the dynamic table when it comes for the second time within some two hundred, so that what never
/// recurs (time-outs, trace and request ids) pushes nothing out; from the third time on it costs a byte or two. The
/// first field of a name that has come before goes in too, for the sake of its name.
///
/// The table is shared by all that goes over the connection. A sender that could be made to guess another's secrets, and
/// measure the blocks, learns whether the whole value of a field was right; fields marked as sensitive are never indexed.
#[derive(Debug)]
pub struct Encoder {
    table: DynamicTable,
    recent: Recent,
    max_table: usize,
    resize: Option<Resize>,
}

/// Sizes of the table that the peer has not been told of.
#[derive(Clone, Copy, Debug)]
struct Resize {
    smallest: usize,
    last: usize,
}

impl Encoder {
    /// An encoder that has seen nothing.
    ///
    /// `max_table` is the most bytes its table may have, whatever the peer allows; it is [`DEFAULT_TABLE`] until the peer
    /// allows more.
    pub fn new(max_table: usize) -> Self {
        let table = DynamicTable::new(DEFAULT_TABLE);
        let resize = (max_table < DEFAULT_TABLE).then_some(Resize { smallest: max_table, last: max_table });
        Self { table, recent: Recent::default(), max_table, resize }
    }

    /// Takes the peer's `SETTINGS_HEADER_TABLE_SIZE`, in bytes. The next block says so where the table changes.
    pub fn set_peer_limit(&mut self, size: u32) {
        let last = self.max_table.min(size as usize);
        let smallest = self.resize.map_or(last, |resize| resize.smallest.min(last));
        self.resize = Some(Resize { smallest, last });
    }

    /// Encodes a block and appends it to `out`. It must be sent, and before those that are encoded later.
    pub fn encode<'a>(&mut self, fields: impl Iterator<Item = Field<'a>>, out: &mut Vec<u8>) {
        self.write_size_updates(out);
        for field in fields {
            self.write_field(field, out);
        }
    }

    /// RFC 7541, 4.2: the smallest size there was since the last block, as the peer evicted by it, and the last.
    fn write_size_updates(&mut self, out: &mut Vec<u8>) {
        let Some(Resize { smallest, last }) = self.resize.take() else { return };
        for size in [smallest, last] {
            if size != self.table.max() {
                self.table.set_max(size);
                integer::encode(SIZE_UPDATE, size, out);
            }
        }
    }

    fn write_field(&mut self, field: Field<'_>, out: &mut Vec<u8>) {
        let name_hash = hash(0, field.name);
        let name = Name { hash: name_hash, fixed: static_table::find_name(name_hash, field.name) };
        if field.sensitive {
            return write_literal(NEVER_INDEXED, self.name_index(&name, field), field, out);
        }
        if let Some(index) = name.fixed.and_then(|first| static_table::find_value(first, field.value)) {
            return integer::encode(INDEXED, index, out);
        }
        // One large field would push many small ones out.
        if field.size() > self.table.max() / 4 {
            return write_literal(NOT_INDEXED, self.name_index(&name, field), field, out);
        }
        self.write_indexable(&name, field, out);
    }

    fn write_indexable(&mut self, name: &Name, field: Field<'_>, out: &mut Vec<u8>) {
        let hash = hash(name.hash, field.value);
        match self.recent.look(hash, &self.table, |entry| entry.is(field.name, field.value)) {
            Sight::Entry(place) => return integer::encode(INDEXED, dynamic_index(place), out),
            Sight::Again => return self.insert(name, hash, field, out),
            Sight::First => {}
        }
        let index = match (name.fixed, self.look_name(name, field)) {
            (Some(index), _) => index,
            (None, Sight::Entry(place)) => dynamic_index(place),
            (None, Sight::Again) => return self.insert(name, hash, field, out),
            (None, Sight::First) => {
                self.recent.note(name.hash, self.table.gone_serial(), &self.table);
                0
            }
        };
        self.recent.note(hash, self.table.gone_serial(), &self.table);
        write_literal(NOT_INDEXED, index, field, out);
    }

    fn insert(&mut self, name: &Name, hash: u64, field: Field<'_>, out: &mut Vec<u8>) {
        write_literal(INSERTED, self.name_index(name, field), field, out);
        let serial = self.table.next_serial();
        self.recent.note(hash, serial, &self.table);
        if name.fixed.is_none() {
            self.recent.note(name.hash, serial, &self.table);
        }
        self.table.insert(field.name, field.value);
    }

    /// The index of an entry of this field's name, or 0.
    fn name_index(&self, name: &Name, field: Field<'_>) -> usize {
        match (name.fixed, self.look_name(name, field)) {
            (Some(index), _) => index,
            (None, Sight::Entry(place)) => dynamic_index(place),
            (None, _) => 0,
        }
    }

    fn look_name(&self, name: &Name, field: Field<'_>) -> Sight {
        if name.fixed.is_some() {
            return Sight::First;
        }
        self.recent.look(name.hash, &self.table, |entry| entry.name() == field.name)
    }
}

/// What is known of a field's name.
struct Name {
    hash: u64,
    /// Its index in the static table, if it is there.
    fixed: Option<usize>,
}

/// The index of the dynamic table's entry at `place`.
const fn dynamic_index(place: usize) -> usize {
    static_table::LEN + 1 + place
}

/// Appends a field whose name is that of the entry at `name`, or where that is 0, as its own.
fn write_literal(form: Form, name: usize, field: Field<'_>, out: &mut Vec<u8>) {
    integer::encode(form, name, out);
    if name == 0 {
        write_string(field.name, out);
    }
    write_string(field.value, out);
}

/// Appends a string (RFC 7541, 5.2), by Huffman where that is shorter.
fn write_string(string: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(string);
    if coded < string.len() {
        integer::encode(HUFFMAN, coded, out);
        huffman::encode(string, out);
    } else {
        integer::encode(PLAIN, string.len(), out);
        out.extend_from_slice(string);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, ListLimits};
    use super::*;
    use crate::fields::Fields;

    const LIMITS: ListLimits = ListLimits { size: 1 << 20, count: 1000 };

    /// An encoder, and the decoder it speaks to.
    struct Pair(Encoder, Decoder);

    impl Pair {
        fn new() -> Self {
            Self(Encoder::new(DEFAULT_TABLE), Decoder::new(DEFAULT_TABLE))
        }

        /// Encodes a block, asserts that it decodes to the same, and returns it.
        #[track_caller]
        fn send(&mut self, fields: &[Field<'_>]) -> Vec<u8> {
            let (mut block, mut list) = (Vec::new(), Fields::new());
            self.0.encode(fields.iter().copied(), &mut block);
            self.1.decode(&block, &LIMITS, &mut list).unwrap();
            assert!(list.iter().eq(fields.iter().copied()), "{list:?}");
            block
        }
    }

    fn field<'a>(name: &'a str, value: &'a str) -> Field<'a> {
        Field::new(name.as_bytes(), value.as_bytes())
    }

    #[test]
    fn the_examples_of_the_rfc_read_back() {
        let mut pair = Pair::new();
        let host = field(":authority", "www.example.com");
        let get = [field(":method", "GET"), field(":scheme", "http"), field(":path", "/"), host];
        // C.4.1, but for the host, which comes for the first time and is not inserted.
        assert_eq!(pair.send(&get)[..4], [0x82, 0x86, 0x84, 0x01]);
        // Now it is, and so the block is that of the RFC.
        assert_eq!(pair.send(&get), b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
        assert_eq!(pair.send(&get), [0x82, 0x86, 0x84, 0xbe]);
        for status in ["302", "307", "302", "200"] {
            pair.send(&[field(":status", status), field("cache-control", "private"), field("location", "https://a.b")]);
        }
    }

    #[test]
    fn a_field_that_recurs_costs_a_byte_and_one_that_does_not_pushes_nothing_out() {
        let mut pair = Pair::new();
        let agent = field("user-agent", "grpc-go/1.70");
        assert!(pair.send(&[agent]).len() > 8);
        for n in 0..20 {
            let id = format!("{n:040}");
            pair.send(&[field("x-request-id", &id)]);
        }
        assert!(pair.send(&[agent]).len() > 8);
        for n in 20..2000 {
            let id = format!("{n:040}");
            pair.send(&[field("x-request-id", &id)]);
            assert_eq!(pair.send(&[agent]).len(), 1);
        }
        // The agent, and one request id for its name's sake.
        assert_eq!(pair.0.table.contents().0.len(), 2);
    }

    #[test]
    fn sensitive_fields_are_never_indexed_though_their_names_are() {
        let mut pair = Pair::new();
        let secret = Field { sensitive: true, ..field("x-key", "secret") };
        for _ in 0..4 {
            assert_eq!(pair.send(&[secret])[..2], [0x10, 0x84]);
        }
        pair.send(&[field("x-key", "open")]);
        pair.send(&[field("x-key", "open")]);
        assert_eq!(pair.send(&[secret])[..2], [0x1f, 0x2f]);
        assert_eq!(pair.send(&[Field { sensitive: true, ..field(":method", "GET") }])[0], 0x12);
        assert_eq!(pair.0.table.contents().0.len(), 1);
    }

    #[test]
    fn large_fields_are_never_inserted() {
        let mut pair = Pair::new();
        let large = "v".repeat(1024 - 32);
        let fields = [field("k", &large), field("l", &large[..991])];
        for _ in 0..3 {
            pair.send(&fields);
        }
        let (entries, size) = pair.0.table.contents();
        assert_eq!((entries.len(), size), (1, 1024));
    }

    #[test]
    fn the_table_goes_by_the_peers_limit_and_its_own() {
        let mut pair = Pair::new();
        let fields = [field("a", "b")];
        for _ in 0..2 {
            pair.send(&fields);
        }
        pair.0.set_peer_limit(u32::MAX);
        assert_eq!(pair.send(&fields), [0xbe]);
        // Nothing, and then all again: both are told, and the table is empty.
        pair.0.set_peer_limit(0);
        pair.0.set_peer_limit(8192);
        assert_eq!(pair.send(&fields)[..4], [0x20, 0x3f, 0xe1, 0x1f]);
        assert_eq!(pair.send(&fields), [0xbe]);
        pair.0.set_peer_limit(0);
        assert_eq!(pair.send(&fields)[0], 0x20);
        assert_eq!(pair.send(&fields), pair.send(&fields));
        assert_eq!(pair.0.table.contents(), (vec![], 0));
    }

    #[test]
    fn an_encoder_without_a_table_says_so_at_once() {
        let mut encoder = Encoder::new(0);
        let mut block = Vec::new();
        for _ in 0..3 {
            encoder.encode([field("a", "b")].into_iter(), &mut block);
        }
        assert_eq!(block, [0x20, 0, 1, b'a', 1, b'b', 0, 1, b'a', 1, b'b', 0, 1, b'a', 1, b'b']);
    }

    #[test]
    fn strings_are_huffman_coded_where_that_is_shorter() {
        let mut block = Vec::new();
        let binary = Field::new(b"k-bin", &[0, 255, 13, 10]);
        Encoder::new(4096).encode([binary].into_iter(), &mut block);
        assert_eq!(block, [&[0, 0x84], &block[2..6], &[4, 0, 255, 13, 10]].concat());
        assert_eq!(Pair::new().send(&[binary]), block);
    }

    #[test]
    fn an_encoder_costs_little_until_fields_are_encoded() {
        assert!(size_of::<Encoder>() <= 160, "{}", size_of::<Encoder>());
    }
}
