//! Against another implementation, and against noise.
//!
//! The other one is `loona-hpack`, the last of the line of `hpack` that is released (0.4.3, November 2024): it shares no
//! code with this one, stands alone without a connection around it, and has its table's size changed by hand. The `h2`
//! crate keeps its own to itself.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fields::{Field, Fields};

/// More than any list here has.
const LIMITS: ListLimits = ListLimits { size: 1 << 24, count: 1 << 16 };

/// The most bytes of a table here.
const MAX_TABLE: u16 = 10_000;

type Pair = (Vec<u8>, Vec<u8>);

/// Names and values of which many recur, some only once, and few are large.
fn pair() -> impl Strategy<Value = Pair> {
    let name = prop_oneof![
        6 => prop::sample::select(vec![":path", ":status", "te", "grpc-timeout", "content-type", "x-id", "accept-encoding"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    let value = prop_oneof![
        6 => prop::sample::select(vec!["", "/", "200", "404", "trailers", "application/grpc", "gzip, deflate", "17u"])
            .prop_map(|value| value.as_bytes().to_vec()),
        2 => "[ -~]{0,40}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 200..3000_usize).prop_map(|(byte, length)| std::vec![byte; length]),
    ];
    (name, value)
}

/// Changes of the table's size, and the list that goes out behind them.
fn turn() -> impl Strategy<Value = (Vec<u16>, Vec<Pair>)> {
    let resizes = prop_oneof![4 => Just(vec![]), 1 => vec(0..=MAX_TABLE, 1..4), 1 => vec(0..300_u16, 1..3)];
    (resizes, vec(pair(), 1..12))
}

fn fields(list: &[Pair]) -> impl Iterator<Item = Field<'_>> {
    list.iter().map(|(name, value)| Field::new(name, value))
}

fn pairs(fields: &Fields) -> Vec<Pair> {
    fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Pair>, Error> {
    let mut fields = Fields::new();
    assert_eq!(decoder.decode(block, &LIMITS, &mut fields)?, Listing::Whole);
    Ok(pairs(&fields))
}

/// The other implementation's decoder.
fn other_decoder() -> loona_hpack::Decoder<'static> {
    let mut other = loona_hpack::Decoder::new();
    other.set_max_allowed_table_size(MAX_TABLE.into());
    other
}

/// A field as a peer may represent it, sensibly or not.
#[derive(Clone, Debug)]
enum Representation {
    Indexed(usize),
    Literal { form: Form, name: Result<usize, Text>, value: Text },
}

/// A string, and whether it is coded by Huffman.
type Text = (Vec<u8>, bool);

fn representation() -> impl Strategy<Value = Representation> {
    let index = || prop_oneof![3 => 1..=61_usize, 3 => 62..66_usize, 1 => 0..200_usize];
    let form = prop::sample::select(vec![INSERTED, INSERTED, INSERTED, NOT_INDEXED, NEVER_INDEXED]);
    let literal = (form, any::<bool>(), index(), pair(), any::<(bool, bool)>());
    prop_oneof![
        index().prop_map(Representation::Indexed),
        literal.prop_map(|(form, by_index, index, (name, value), (name_coded, value_coded))| {
            // Index 0 is what says that a name follows.
            let name = if by_index && index > 0 { Ok(index) } else { Err((name, name_coded)) };
            Representation::Literal { form, name, value: (value, value_coded) }
        }),
    ]
}

impl Representation {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Indexed(index) => integer::encode(INDEXED, *index, out),
            Self::Literal { form, name, value } => {
                integer::encode(*form, *name.as_ref().unwrap_or(&0), out);
                if let Err(name) = name {
                    write(name, out);
                }
                write(value, out);
            }
        }
    }
}

fn write((text, coded): &Text, out: &mut Vec<u8>) {
    if *coded {
        integer::encode(HUFFMAN, huffman::encoded_len(text), out);
        huffman::encode(text, out);
    } else {
        integer::encode(PLAIN, text.len(), out);
        out.extend_from_slice(text);
    }
}

proptest! {
    // The fuzz target `hpack` goes on from here.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_we_encode_decodes_to_the_same_here_and_elsewhere(turns in vec(turn(), 1..30)) {
        let mut encoder = Encoder::new(MAX_TABLE.into());
        let (mut decoder, mut other) = (Decoder::new(MAX_TABLE.into()), other_decoder());
        for (resizes, list) in turns {
            for size in resizes {
                encoder.set_peer_limit(size.into());
            }
            let mut block = Vec::new();
            encoder.encode(fields(&list), &mut block);
            prop_assert_eq!(decoded(&mut decoder, &block), Ok(list.clone()));
            prop_assert_eq!(other.decode(&block).ok(), Some(list));
        }
    }

    #[test]
    fn what_another_encodes_decodes_to_the_same(turns in vec(turn(), 1..30)) {
        let (mut other, mut decoder) = (loona_hpack::Encoder::new(), Decoder::new(MAX_TABLE.into()));
        for (resizes, list) in turns {
            let mut block = Vec::new();
            for size in resizes {
                other.set_max_table_size(size.into());
                integer::encode(SIZE_UPDATE, size.into(), &mut block);
            }
            block.extend(other.encode(list.iter().map(|(name, value)| (&name[..], &value[..]))));
            prop_assert_eq!(decoded(&mut decoder, &block), Ok(list));
        }
    }

    #[test]
    fn any_representations_are_read_as_elsewhere(
        turns in vec((vec(0..2 * MAX_TABLE, 0..2), vec(representation(), 1..12)), 1..20)
    ) {
        let (mut decoder, mut other) = (Decoder::new(MAX_TABLE.into()), other_decoder());
        for (resizes, list) in turns {
            let mut block = Vec::new();
            for size in resizes {
                // Larger ones are errors, and end the walk too often.
                integer::encode(SIZE_UPDATE, (size % (MAX_TABLE + 10)).into(), &mut block);
            }
            for one in &list {
                one.write(&mut block);
            }
            let here = decoded(&mut decoder, &block);
            prop_assert_eq!(here.clone().ok(), other.decode(&block).ok());
            if here.is_err() {
                break;
            }
        }
    }

    #[test]
    fn sensitive_fields_stay_so(list in vec((pair(), any::<bool>()), 0..40)) {
        let field = |((name, value), sensitive): &(Pair, bool)| (name.clone(), value.clone(), *sensitive);
        let sent = list.iter().map(|((name, value), sensitive)| Field { name, value, sensitive: *sensitive });
        let (mut block, mut fields) = (Vec::new(), Fields::new());
        Encoder::new(DEFAULT_TABLE).encode(sent, &mut block);
        prop_assert_eq!(Decoder::new(DEFAULT_TABLE).decode(&block, &LIMITS, &mut fields), Ok(Listing::Whole));
        let got = fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec(), field.sensitive));
        prop_assert!(got.eq(list.iter().map(field)));
    }

    #[test]
    fn a_part_of_a_block_is_a_part_of_the_list_or_an_error(turns in vec(turn(), 1..4), at in any::<prop::sample::Index>()) {
        let (mut encoder, mut decoder) = (Encoder::new(DEFAULT_TABLE), Decoder::new(DEFAULT_TABLE));
        let (last, before) = turns.split_last().expect("there is one at least");
        let mut block = Vec::new();
        for (_, list) in before {
            block.clear();
            encoder.encode(fields(list), &mut block);
            decoded(&mut decoder, &block).expect("it is whole");
        }
        block.clear();
        encoder.encode(fields(&last.1), &mut block);
        if let Ok(list) = decoded(&mut decoder, &block[..at.index(block.len())]) {
            prop_assert!(list.len() < last.1.len() && last.1.starts_with(&list));
        }
    }

    #[test]
    fn limits_keep_the_front_of_a_list_and_the_table_in_step(
        turns in vec(turn(), 1..10), size in 0..3000_usize, count in 0..10_usize
    ) {
        let mut encoder = Encoder::new(MAX_TABLE.into());
        let [mut free, mut limited] = [0; 2].map(|_| Decoder::new(MAX_TABLE.into()));
        let (limits, mut kept) = (ListLimits { size, count }, Fields::new());
        for (_, list) in turns {
            let mut block = Vec::new();
            encoder.encode(fields(&list), &mut block);
            let whole = decoded(&mut free, &block).expect("it is whole");
            let bytes = fields(&whole).map(|field| field.size()).sum::<usize>();
            let expected = match (bytes, whole.len()) {
                (bytes, fields) if bytes > 4 * size || fields > 4 * count => Err(Error::Bomb),
                (bytes, fields) if bytes > size || fields > count => Ok(Listing::TooLarge),
                _ => Ok(Listing::Whole),
            };
            let listing = limited.decode(&block, &limits, &mut kept);
            prop_assert_eq!(listing, expected);
            if listing.is_err() {
                break;
            }
            prop_assert!(whole.starts_with(&pairs(&kept)) && kept.size() <= size && kept.len() <= count);
            prop_assert_eq!(limited.table().contents(), free.table().contents());
        }
    }

    #[test]
    fn noise_does_no_harm(blocks in vec(vec(any::<u8>(), 0..200), 1..10), size in 0..500_usize, count in 0..10_usize) {
        let (mut decoder, mut kept) = (Decoder::new(200), Fields::new());
        for block in blocks {
            let listing = decoder.decode(&block, &ListLimits { size, count }, &mut kept);
            prop_assert!(decoder.table().contents().1 <= DEFAULT_TABLE);
            prop_assert!(listing.is_err() || kept.size() <= size && kept.len() <= count);
        }
    }

    #[test]
    fn a_block_with_a_wrong_byte_is_read_as_elsewhere(
        turns in vec(turn(), 1..6), at in any::<prop::sample::Index>(), flip in 1..=255_u8
    ) {
        let mut encoder = Encoder::new(DEFAULT_TABLE);
        let (mut decoder, mut other) = (Decoder::new(MAX_TABLE.into()), other_decoder());
        let last = turns.len() - 1;
        for (turn, (_, list)) in turns.iter().enumerate() {
            let mut block = Vec::new();
            encoder.encode(fields(list), &mut block);
            if turn == last {
                let at = at.index(block.len());
                block[at] ^= flip;
            }
            let here = decoded(&mut decoder, &block);
            // The other one takes updates anywhere but at the very end, where it refuses even one that stands alone.
            let lenient = Err(Error::Malformed("the table's size changes behind a field"));
            if here != lenient && here != Ok(vec![]) {
                prop_assert_eq!(here.ok(), other.decode(&block).ok());
            }
        }
    }
}
