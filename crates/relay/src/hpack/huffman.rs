//! The Huffman code of header strings (RFC 7541, 5.2 and appendix B).
#![allow(clippy::cast_possible_truncation, reason = "tables are built in const functions, bits are cut out of words")]

use super::Error;

/// How many bits the code of each symbol has: bytes, and then the end of the string.
///
/// They say it all: the code is canonical, which means that shorter codes come first, and in order of their symbols.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, // 0x00
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, // 0x10
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, // 0x20
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, // 0x30
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // 0x40
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, // 0x50
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, // 0x60
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, // 0x70
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, // 0x80
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, // 0x90
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, // 0xa0
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, // 0xb0
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, // 0xc0
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, // 0xd0
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, // 0xe0
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, // 0xf0
    30,
];

const SYMBOLS: usize = 257;

/// The symbol that ends a string; its code must not occur, only its first bits, as padding.
const END: u16 = 256;

const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// Up to this length a code is found by one look-up; longer ones belong to bytes that are rare in headers.
const SHORT: usize = 8;

/// How many bytes `plain` has once it is encoded.
#[inline]
pub(super) fn encoded_len(plain: &[u8]) -> usize {
    plain.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum::<usize>().div_ceil(8)
}

/// Appends `plain` encoded.
pub(super) fn encode(plain: &[u8], out: &mut Vec<u8>) {
    // The last `count` bits of `bits` are still to be written; fewer than 32 between two symbols.
    let (mut bits, mut count) = (0_u64, 0);
    for &byte in plain {
        let length = LENGTHS[usize::from(byte)];
        bits = bits << length | u64::from(CODE.codes[usize::from(byte)]);
        count += length;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    let padding = (8 - count % 8) % 8;
    bits = bits << padding | ((1 << padding) - 1);
    let bytes = usize::from((count + padding) / 8);
    out.extend_from_slice(&bits.to_be_bytes()[8 - bytes..]);
}

/// Appends what `coded` stands for.
///
/// # Errors
///
/// [`Error::Malformed`] where the end of the string is coded, or the padding is not the first, at most seven, bits of it.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + coded.len() * 8 / SHORTEST, 0);
    let length = decode_into(coded, &mut out[start..])?;
    out.truncate(start + length);
    Ok(())
}

/// Writes to the beginning of `room` and returns how much that was.
fn decode_into(coded: &[u8], room: &mut [u8]) -> Result<usize, Error> {
    let mut written = 0;
    // The first `count` bits of `bits` are still to be read, the others are 0.
    let (mut bits, mut count) = (0_u64, 0);
    let (words, rest) = coded.as_chunks::<4>();
    for word in words {
        bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
        count += 32;
        while count >= LONGEST as u32 {
            let (symbol, length) = first_symbol(bits);
            room[written] = byte(symbol)?;
            written += 1;
            bits <<= length;
            count -= length;
        }
    }
    for &last in rest {
        bits |= u64::from(last) << (56 - count);
        count += 8;
    }
    // With ones behind, padding reads as the end of the string, which has more bits than are left.
    bits |= u64::MAX >> count;
    loop {
        let (symbol, length) = first_symbol(bits);
        if length > count {
            break;
        }
        room[written] = byte(symbol)?;
        written += 1;
        bits = !(!bits << length);
        count -= length;
    }
    if count < 8 && bits == u64::MAX { Ok(written) } else { Err(Error::Malformed("a string has bad padding")) }
}

#[inline]
fn byte(symbol: u16) -> Result<u8, Error> {
    u8::try_from(symbol).map_err(|_| Error::Malformed("a string holds the code of its end"))
}

/// The symbol whose code `bits` begin with, and the length of that.
#[inline]
fn first_symbol(bits: u64) -> (u16, u32) {
    let (symbol, length) = CODE.short[(bits >> (64 - SHORT)) as usize];
    if length > 0 { (symbol.into(), length.into()) } else { long_symbol((bits >> 32) as u32) }
}

#[cold]
fn long_symbol(bits: u32) -> (u16, u32) {
    let mut length = SHORT + 1;
    loop {
        let code = bits >> (32 - length);
        let first = CODE.first_of_length[length];
        // Every sequence of bits begins with some code, so at the longest this is true.
        if code < first + CODE.of_length[length] || length == LONGEST {
            let place = CODE.place_of_length[length] + code - first;
            return (CODE.symbols[place as usize], length as u32);
        }
        length += 1;
    }
}

static CODE: Code = Code::new();

struct Code {
    /// Each symbol's code, in the lowest bits.
    codes: [u32; SYMBOLS],
    /// By the next eight bits: the symbol and the length of its code, which is 0 where it is longer than that.
    short: [(u8, u8); 1 << SHORT],
    /// The symbols in order of their codes.
    symbols: [u16; SYMBOLS],
    /// By length: the first code, the number of codes, and the place in `symbols` of the first.
    first_of_length: [u32; LONGEST + 1],
    of_length: [u32; LONGEST + 1],
    place_of_length: [u32; LONGEST + 1],
}

impl Code {
    const fn new() -> Self {
        let mut code = Self {
            codes: [0; SYMBOLS],
            short: [(0, 0); 1 << SHORT],
            symbols: [0; SYMBOLS],
            first_of_length: [0; LONGEST + 1],
            of_length: [0; LONGEST + 1],
            place_of_length: [0; LONGEST + 1],
        };
        let (mut length, mut next, mut place) = (1, 0, 0);
        while length <= LONGEST {
            next <<= 1;
            code.first_of_length[length] = next;
            code.place_of_length[length] = place;
            let mut symbol = 0;
            while symbol <= END {
                if LENGTHS[symbol as usize] as usize == length {
                    code.codes[symbol as usize] = next;
                    code.symbols[place as usize] = symbol;
                    code.fill_short(symbol, length, next);
                    next += 1;
                    place += 1;
                }
                symbol += 1;
            }
            code.of_length[length] = next - code.first_of_length[length];
            length += 1;
        }
        code
    }

    const fn fill_short(&mut self, symbol: u16, length: usize, code: u32) {
        if length > SHORT {
            return;
        }
        let spread = 1 << (SHORT - length);
        let mut at = 0;
        while at < spread {
            self.short[code as usize * spread + at] = (symbol as u8, length as u8);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![7];
        encode(plain, &mut out);
        assert_eq!(out.len() - 1, encoded_len(plain));
        out.split_off(1)
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = b"kept".to_vec();
        decode(coded, &mut out)?;
        assert!(out.starts_with(b"kept"));
        Ok(out.split_off(4))
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // From each length one, from all over appendix B.
        for (symbol, code) in [
            (usize::from(b'0'), 0x0),
            (usize::from(b'%'), 0x15),
            (usize::from(b':'), 0x5c),
            (usize::from(b'Z'), 0xfd),
            (usize::from(b'?'), 0x3fc),
            (usize::from(b'|'), 0x7fc),
            (usize::from(b'#'), 0xffa),
            (0, 0x1ff8),
            (usize::from(b'}'), 0x3ffd),
            (usize::from(b'<'), 0x7ffc),
            (usize::from(b'\\'), 0x7fff0),
            (128, 0xfffe6),
            (153, 0x1f_ffdc),
            (129, 0x3f_ffd2),
            (1, 0x7f_ffd8),
            (9, 0xff_ffea),
            (199, 0x1ff_ffec),
            (192, 0x3ff_ffe0),
            (203, 0x7ff_ffde),
            (2, 0xfff_ffe2),
            (249, 0xfff_fffe),
            (10, 0x3fff_fffc),
            (256, 0x3fff_ffff),
        ] {
            assert_eq!(CODE.codes[symbol], code, "symbol {symbol}");
        }
    }

    #[test]
    fn every_byte_reads_back_wherever_it_stands() {
        let all = (0..=255).collect::<Vec<u8>>();
        assert_eq!(decoded(&encoded(&all)), Ok(all.clone()));
        for byte in 0..=255 {
            for before in 0..9 {
                let mut plain = vec![b'0'; before];
                plain.extend([byte, b'a', byte]);
                assert_eq!(decoded(&encoded(&plain)), Ok(plain));
            }
        }
    }

    #[test]
    fn padding_is_at_most_seven_ones() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        // `a` is 00011, `0` is 00000.
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        let bad = Err(Error::Malformed("a string has bad padding"));
        for coded in [&[0xff][..], &[0b0001_1111, 0xff], &[0b0001_1110], &[0b0001_1011], &[0xff, 0xff, 0xff]] {
            assert_eq!(decoded(coded), bad, "{coded:?}");
        }
        // Half of a code, and nothing else.
        assert_eq!(decoded(&[0b1111_1110]), bad);
    }

    #[test]
    fn the_end_of_a_string_must_not_be_coded() {
        let bad = Err(Error::Malformed("a string holds the code of its end"));
        assert_eq!(decoded(&[0xff; 4]), bad);
        assert_eq!(decoded(&[0xff; 9]), bad);
        assert_eq!(decoded(&[0b0001_1111, 0xff, 0xff, 0xff, 0xff]), bad);
    }
}
