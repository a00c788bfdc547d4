//! The header blocks of replies. What repeats is kept in the peer's dynamic table, as gRPC's servers do it.

const STATUS_200: u8 = 0x88;
/// A field that goes into the dynamic table, and one that does not; both with a new name (RFC 7541 6.2).
const KEPT: u8 = 0x40;
const NOT_KEPT: u8 = 0x00;
/// The first entry of the dynamic table, as an indexed field.
const NEWEST: u8 = 0x80 + 62;
/// A dynamic table without room.
const NO_TABLE: u8 = 0x20;

const CONTENT_TYPE: (&str, &str) = ("content-type", "application/grpc");
const OK: (&str, &str) = ("grpc-status", "0");
const UNIMPLEMENTED: (&str, &str) = ("grpc-status", "12");

/// Encodes header blocks; the blocks must be sent in the order in which they were made.
#[derive(Default)]
pub(super) struct Heads {
    block: Vec<u8>,
    /// Fields in the peer's table, the newest last.
    kept: Vec<(&'static str, &'static str)>,
    without_table: bool,
    /// The next block must say that the table is no longer used.
    must_say_so: bool,
}

impl Heads {
    /// Obeys the peer's `SETTINGS_HEADER_TABLE_SIZE`: two small fields need no more than 128 bytes.
    pub(super) fn table_size(&mut self, size: u32) {
        self.must_say_so |= size < 128 && !self.without_table;
        self.without_table = size < 128;
        if self.without_table {
            self.kept.clear();
        }
    }

    pub(super) fn start(&mut self) -> &[u8] {
        self.begin();
        self.block.push(STATUS_200);
        self.field(CONTENT_TYPE);
        &self.block
    }

    pub(super) fn end(&mut self) -> &[u8] {
        self.begin();
        self.field(OK);
        &self.block
    }

    /// A reply of trailers alone, for what is not served: gRPC's health service among it.
    pub(super) fn unimplemented(&mut self) -> &[u8] {
        self.begin();
        self.block.push(STATUS_200);
        self.field(CONTENT_TYPE);
        self.literal(NOT_KEPT, UNIMPLEMENTED);
        &self.block
    }

    fn begin(&mut self) {
        self.block.clear();
        if std::mem::take(&mut self.must_say_so) {
            self.block.push(NO_TABLE);
        }
    }

    fn field(&mut self, field: (&'static str, &'static str)) {
        if self.without_table {
            self.literal(NOT_KEPT, field);
        } else if let Some(age) = self.kept.iter().rev().position(|kept| *kept == field) {
            self.block.push(NEWEST + u8::try_from(age).expect("two fields are kept"));
        } else {
            self.kept.push(field);
            self.literal(KEPT, field);
        }
    }

    fn literal(&mut self, kind: u8, (name, value): (&str, &str)) {
        self.block.push(kind);
        for text in [name, value] {
            self.block.push(u8::try_from(text.len()).expect("short texts"));
            self.block.extend_from_slice(text.as_bytes());
        }
    }
}
