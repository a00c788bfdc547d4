//! From header blocks to header lists.

use super::dynamic_table::{DynamicTable, Entry};
use super::{DEFAULT_TABLE, Error, HUFFMAN, INDEXED, INSERTED, NOT_INDEXED, SIZE_UPDATE};
use super::{huffman, integer, static_table};
use crate::fields::{Fields, OVERHEAD};

/// Decodes the header blocks of one direction of a connection, all of them and in their order.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    max_table: usize,
}

/// How large a header list may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimits {
    /// In bytes, as `SETTINGS_MAX_HEADER_LIST_SIZE` counts them: 32 for each field are added.
    pub size: usize,
    /// In fields: tiny ones are cheap to send and dear to keep.
    pub count: usize,
}

/// What became of a header list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All its fields are there.
    Whole,
    /// It is beyond the limits: the first fields are there, the others were decoded for the table's sake alone.
    TooLarge,
}

impl Decoder {
    /// A decoder that has seen nothing.
    ///
    /// `max_table` is what we announce as `SETTINGS_HEADER_TABLE_SIZE`, in bytes. Until the peer takes that up by an
    /// update, the table has the [default size](DEFAULT_TABLE), which the peer starts from.
    pub const fn new(max_table: usize) -> Self {
        Self { table: DynamicTable::new(DEFAULT_TABLE), max_table }
    }

    /// Decodes a whole header block, that of HEADERS and all CONTINUATIONs, into `fields`, which is cleared first.
    ///
    /// A field that its sender forbade to index is marked as sensitive.
    ///
    /// # Errors
    ///
    /// [`Error`] where the connection must end: `fields` may then hold some of the list.
    pub fn decode(&mut self, block: &[u8], limits: &ListLimits, fields: &mut Fields) -> Result<Listing, Error> {
        fields.clear();
        let mut input = block;
        let mut tally = Tally { limits, size: 0, count: 0 };
        self.read_size_updates(&mut input)?;
        while let Some(&first) = input.first() {
            let size = if first & INDEXED.pattern != 0 {
                self.read_indexed(&mut input, fields)?
            } else if first & INSERTED.pattern != 0 {
                self.read_inserted(&mut input, fields)?
            } else if first & SIZE_UPDATE.pattern == 0 {
                self.read_not_indexed(&mut input, fields)?
            } else {
                return Err(Error::Malformed("the table's size changes behind a field"));
            };
            if !tally.add(size)? {
                fields.pop();
            }
        }
        Ok(if tally.within() { Listing::Whole } else { Listing::TooLarge })
    }

    fn read_size_updates(&mut self, input: &mut &[u8]) -> Result<(), Error> {
        while input
            .first()
            .is_some_and(|first| first >> SIZE_UPDATE.prefix == SIZE_UPDATE.pattern >> SIZE_UPDATE.prefix)
        {
            let max = integer::decode(input, SIZE_UPDATE.prefix)?;
            if max > self.max_table {
                return Err(Error::Malformed("the table's size goes beyond the one we announced"));
            }
            self.table.set_max(max);
        }
        Ok(())
    }

    /// Reads a field that is in a table (RFC 7541, 6.1). Returns its size, as those below do.
    fn read_indexed(&self, input: &mut &[u8], fields: &mut Fields) -> Result<usize, Error> {
        let index = integer::decode(input, INDEXED.prefix)?;
        let entry = self.entry(index)?;
        fields.push_joined(entry.joined, entry.name);
        Ok(entry.joined.len() + OVERHEAD)
    }

    /// Reads a field that goes into the table (RFC 7541, 6.2.1).
    fn read_inserted(&mut self, input: &mut &[u8], fields: &mut Fields) -> Result<usize, Error> {
        let (name, size) = self.read_literal(input, INSERTED.prefix, fields.open())?;
        fields.seal(name, false);
        let field = fields.last().expect("a field was just sealed");
        self.table.insert(field.name, field.value);
        Ok(size)
    }

    /// Reads a field that does not, or must not, go into a table (RFC 7541, 6.2.2 and 6.2.3).
    fn read_not_indexed(&self, input: &mut &[u8], fields: &mut Fields) -> Result<usize, Error> {
        let sensitive = input.first().is_some_and(|first| first >> NOT_INDEXED.prefix != 0);
        let (name, size) = self.read_literal(input, NOT_INDEXED.prefix, fields.open())?;
        fields.seal(name, sensitive);
        Ok(size)
    }

    /// Appends a literal's name and its value to `out`. Returns the length of the name, and the size of the field.
    fn read_literal(&self, input: &mut &[u8], prefix: u32, out: &mut Vec<u8>) -> Result<(usize, usize), Error> {
        let start = out.len();
        match integer::decode(input, prefix)? {
            0 => read_string(input, out)?,
            index => out.extend_from_slice(self.entry(index)?.name()),
        }
        let name = out.len() - start;
        read_string(input, out)?;
        Ok((name, out.len() - start + OVERHEAD))
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<Entry<'_>, Error> {
        if let Some(place) = index.checked_sub(static_table::LEN + 1) {
            return self.table.get(place).ok_or(Error::Malformed("an index is beyond the tables"));
        }
        if index == 0 {
            return Err(Error::Malformed("an index is 0"));
        }
        Ok(static_table::entry(index))
    }
}

/// Appends a string (RFC 7541, 5.2) to `out`.
fn read_string(input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let coded = input.first().is_some_and(|first| first & HUFFMAN.pattern != 0);
    let length = integer::decode(input, HUFFMAN.prefix)?;
    let Some((string, rest)) = input.split_at_checked(length) else {
        return Err(Error::Malformed("it ends within a string"));
    };
    *input = rest;
    if coded {
        return huffman::decode(string, out);
    }
    out.extend_from_slice(string);
    Ok(())
}

/// The list so far.
struct Tally<'a> {
    limits: &'a ListLimits,
    size: usize,
    count: usize,
}

impl Tally<'_> {
    /// Counts a field of this size, and says whether it may be kept.
    fn add(&mut self, size: usize) -> Result<bool, Error> {
        self.size += size;
        self.count += 1;
        let most = |limit: usize| limit.saturating_mul(BOMB);
        let bomb = self.size > most(self.limits.size) || self.count > most(self.limits.count);
        if bomb { Err(Error::Bomb) } else { Ok(self.within()) }
    }

    fn within(&self) -> bool {
        self.size <= self.limits.size && self.count <= self.limits.count
    }
}

/// A list beyond this many times the limits is taken for an attack.
const BOMB: usize = 4;

#[cfg(test)]
impl Decoder {
    pub(super) fn table(&self) -> &DynamicTable {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ListLimits = ListLimits { size: 16_384, count: 100 };

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.bytes().filter(u8::is_ascii_hexdigit).map(char::from).collect::<Vec<_>>();
        digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
    }

    /// Decodes `block` and checks the list, and what is in the table behind it.
    #[track_caller]
    fn check(decoder: &mut Decoder, block: &str, list: &[(&str, &str)], table: &[(&str, &str)], size: usize) {
        let mut fields = Fields::new();
        assert_eq!(decoder.decode(&hex(block), &LIMITS, &mut fields), Ok(Listing::Whole));
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let got = fields.iter().map(|field| (text(field.name), text(field.value))).collect::<Vec<_>>();
        assert_eq!(got, owned(list));
        assert_eq!(decoder.table.contents(), (owned(table), size));
    }

    #[test]
    fn rfc_c2_each_form_of_a_field() {
        let custom = [("custom-key", "custom-header")];
        check(
            &mut Decoder::new(4096),
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &custom,
            &custom,
            55,
        );
        check(&mut Decoder::new(4096), "040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0);
        check(&mut Decoder::new(4096), "1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0);
        check(&mut Decoder::new(4096), "82", &[(":method", "GET")], &[], 0);
    }

    #[test]
    fn rfc_c3_and_c4_requests_without_and_with_huffman() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let huffman = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for [first, second, third] in [plain, huffman] {
            let mut decoder = Decoder::new(4096);
            let host = (":authority", "www.example.com");
            let list = [(":method", "GET"), (":scheme", "http"), (":path", "/"), host];
            check(&mut decoder, first, &list, &[host], 57);
            let cache = ("cache-control", "no-cache");
            check(&mut decoder, second, &[&list[..], &[cache]].concat(), &[cache, host], 110);
            let custom = ("custom-key", "custom-value");
            let list = [(":method", "GET"), (":scheme", "https"), (":path", "/index.html"), host, custom];
            check(&mut decoder, third, &list, &[custom, cache, host], 164);
        }
    }

    #[test]
    fn rfc_c5_and_c6_responses_that_evict_without_and_with_huffman() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
             546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
             6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
             2076 6572 7369 6f6e 3d31",
        ];
        let huffman = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
             8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
             dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        for [first, second, third] in [plain, huffman] {
            // The examples have tables of 256 bytes.
            let mut decoder = Decoder::new(4096);
            assert_eq!(decoder.decode(&hex("3fe1 01"), &LIMITS, &mut Fields::new()), Ok(Listing::Whole));
            let [found, kept] = [(":status", "302"), (":status", "307")];
            let private = ("cache-control", "private");
            let [date, later] = ["21 GMT", "22 GMT"].map(|end| format!("Mon, 21 Oct 2013 20:13:{end}"));
            let [date, later] = [("date", &*date), ("date", &*later)];
            let location = ("location", "https://www.example.com");
            check(&mut decoder, first, &[found, private, date, location], &[location, date, private, found], 222);
            check(&mut decoder, second, &[kept, private, date, location], &[kept, location, date, private], 222);
            let gzip = ("content-encoding", "gzip");
            let cookie = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
            let list = [(":status", "200"), private, later, location, gzip, cookie];
            check(&mut decoder, third, &list, &[cookie, gzip, later], 215);
        }
    }

    fn decode(decoder: &mut Decoder, block: &str, limits: ListLimits) -> (Result<Listing, Error>, Fields) {
        let mut fields = Fields::new();
        (decoder.decode(&hex(block), &limits, &mut fields), fields)
    }

    #[test]
    fn only_fields_that_must_never_be_indexed_are_sensitive() {
        let (_, fields) = decode(&mut Decoder::new(4096), "1f08 0161 0f08 0161 4f 0161 82", LIMITS);
        assert!(fields.iter().map(|field| field.sensitive).eq([true, false, false, false]));
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        let mut decoder = Decoder::new(4096);
        for (block, why) in [
            ("80", "an index is 0"),
            ("be", "an index is beyond the tables"),
            ("7e 0161", "an index is beyond the tables"),
            ("ff80 8080 8010", "an integer exceeds 32 bits"),
            ("82 20", "the table's size changes behind a field"),
            ("3fe2 1f", "the table's size goes beyond the one we announced"),
            ("40 0161", "it ends where an integer is due"),
            ("40 0161 0262", "it ends within a string"),
            ("40 0161 ff", "it ends within an integer"),
            ("00 0161 81ff", "a string has bad padding"),
            ("00 0161 84ff ffff ff", "a string holds the code of its end"),
        ] {
            assert_eq!(decode(&mut decoder, block, LIMITS).0, Err(Error::Malformed(why)), "{block}");
        }
    }

    #[test]
    fn size_updates_stand_first_and_may_be_several() {
        let mut decoder = Decoder::new(8192);
        check(&mut decoder, "40 0161 0162", &[("a", "b")], &[("a", "b")], 34);
        check(&mut decoder, "20 3fe1 3f 82", &[(":method", "GET")], &[], 0);
        assert_eq!(decoder.table.max(), 8192);
        check(&mut decoder, "20 40 0161 0162", &[("a", "b")], &[], 0);
    }

    #[test]
    fn a_list_beyond_the_limits_keeps_the_table_in_step() {
        let size = |size| ListLimits { size, count: 100 };
        let mut decoder = Decoder::new(4096);
        let block = "40 0161 0162 40 0163 0164 40 0165 0166";
        let (listing, fields) = decode(&mut decoder, block, size(2 * 34));
        assert_eq!((listing, fields.len(), fields.size()), (Ok(Listing::TooLarge), 2, 2 * 34));
        check(&mut decoder, "be c0", &[("e", "f"), ("a", "b")], &[("e", "f"), ("c", "d"), ("a", "b")], 3 * 34);
        let (listing, fields) = decode(&mut decoder, "be be be", ListLimits { size: 1000, count: 2 });
        assert_eq!((listing, fields.len()), (Ok(Listing::TooLarge), 2));
        assert_eq!(decode(&mut decoder, block, size(3 * 34)).0, Ok(Listing::Whole));
    }

    #[test]
    fn a_list_four_times_beyond_the_limits_is_a_bomb() {
        let mut decoder = Decoder::new(4096);
        check(&mut decoder, "40 0161 0162", &[("a", "b")], &[("a", "b")], 34);
        let limits = ListLimits { size: 2 * 34, count: 100 };
        assert_eq!(decode(&mut decoder, &"be".repeat(8), limits).0, Ok(Listing::TooLarge));
        assert_eq!(decode(&mut decoder, &"be".repeat(9), limits).0, Err(Error::Bomb));
        let limits = ListLimits { size: 100_000, count: 3 };
        assert_eq!(decode(&mut decoder, &"be".repeat(12), limits).0, Ok(Listing::TooLarge));
        assert_eq!(decode(&mut decoder, &"be".repeat(13), limits).0, Err(Error::Bomb));
    }

    #[test]
    fn a_decoder_costs_little_until_fields_are_inserted() {
        assert!(size_of::<Decoder>() <= 120, "{}", size_of::<Decoder>());
    }
}
