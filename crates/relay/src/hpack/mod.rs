//! HPACK (RFC 7541): header blocks to header lists and back.
//!
//! A [`Decoder`] reads the blocks that a peer sends on one connection, an [`Encoder`] writes the ones it gets; each has
//! one dynamic table, whose contents depend on every block before. So blocks are decoded in the order they came, all of
//! them, also those of streams that are gone, and sent in the order they were encoded.
//!
//! Neither allocates anything before a field goes into its table: an idle connection costs the two structures.
//!
//! Neither judges fields: names in capitals, empty names or line breaks in values pass as they are.

mod decoder;
mod dynamic_table;
mod encoder;
mod hash;
mod huffman;
mod integer;
mod recent;
mod static_table;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, ListLimits, Listing};
pub use encoder::Encoder;

/// The size of a dynamic table before any setting or update says otherwise, in bytes (RFC 9113, 6.5.2).
pub const DEFAULT_TABLE: usize = 4096;

/// Why a header block cannot be decoded. The table is then out of step with the peer's, and the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The block is not HPACK: end the connection by `COMPRESSION_ERROR`.
    #[error("a header block is malformed: {0}; the peer's HPACK encoder is at fault")]
    Malformed(&'static str),
    /// The list is more than four times as large as allowed: end the connection by `ENHANCE_YOUR_CALM`.
    #[error("a header block holds more than four times what is allowed; the peer is attacking, or its limits are off")]
    Bomb,
}

/// The first bits of a field's representation (RFC 7541, section 6), and how many bits are left in that byte.
#[derive(Clone, Copy, Debug)]
struct Form {
    pattern: u8,
    prefix: u32,
}

const INDEXED: Form = Form { pattern: 0x80, prefix: 7 };
const INSERTED: Form = Form { pattern: 0x40, prefix: 6 };
const SIZE_UPDATE: Form = Form { pattern: 0x20, prefix: 5 };
const NEVER_INDEXED: Form = Form { pattern: 0x10, prefix: 4 };
const NOT_INDEXED: Form = Form { pattern: 0x00, prefix: 4 };

/// A string that is coded by Huffman (RFC 7541, 5.2), or else its bytes as they are.
const HUFFMAN: Form = Form { pattern: 0x80, prefix: 7 };
const PLAIN: Form = Form { pattern: 0x00, prefix: 7 };
