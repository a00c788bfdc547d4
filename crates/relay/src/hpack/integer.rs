//! Integers with a prefix (RFC 7541, 5.1).

use super::{Error, Form};

/// Reads an integer whose prefix has `prefix` bits off `input`.
///
/// # Errors
///
/// [`Error::Malformed`] where the input ends within it, or where it is above 2³² − 1 or longer than such ones need be.
#[inline]
pub(super) fn decode(input: &mut &[u8], prefix: u32) -> Result<usize, Error> {
    let (&first, rest) = input.split_first().ok_or(Error::Malformed("it ends where an integer is due"))?;
    *input = rest;
    let most = (1_u8 << prefix) - 1;
    let value = first & most;
    if value < most { Ok(value.into()) } else { continued(input, most) }
}

#[cold]
fn continued(input: &mut &[u8], prefix: u8) -> Result<usize, Error> {
    let mut value = u64::from(prefix);
    // Five groups of seven bits hold all that is allowed.
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = input.split_first().ok_or(Error::Malformed("it ends within an integer"))?;
        *input = rest;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map(|value| value as usize).map_err(|_| TOO_LARGE);
        }
    }
    Err(TOO_LARGE)
}

const TOO_LARGE: Error = Error::Malformed("an integer exceeds 32 bits");

/// Appends `value` behind the pattern of `form`.
#[inline]
pub(super) fn encode(form: Form, value: usize, out: &mut Vec<u8>) {
    let most = (1_usize << form.prefix) - 1;
    if value < most {
        out.push(form.pattern | low_byte(value));
        return;
    }
    out.push(form.pattern | low_byte(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

const fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(prefix: u32, value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encode(Form { pattern: 0, prefix }, value, &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // C.1.1, C.1.2 and C.1.3.
        for (prefix, value, bytes) in [(5, 10, &[0x0a][..]), (5, 1337, &[0x1f, 0x9a, 0x0a]), (8, 42, &[0x2a])] {
            assert_eq!(encoded(prefix, value), bytes);
        }
        assert_eq!(decode(&mut &[0b1110_1010][..], 5), Ok(10));
        assert_eq!(decode(&mut &[0xff, 0x9a, 0x0a][..], 5), Ok(1337));
    }

    #[test]
    fn every_prefix_and_bound_reads_back_and_leaves_what_follows() {
        for prefix in 4..=7 {
            for value in [0, 1, 14, 15, 16, 30, 31, 62, 63, 126, 127, 128, 254, 255, 16_383, 70_000, u32::MAX as usize]
            {
                let mut bytes = encoded(prefix, value);
                bytes.push(0xab);
                let mut input = &bytes[..];
                assert_eq!((decode(&mut input, prefix), input), (Ok(value), &[0xab][..]));
            }
        }
    }

    #[test]
    fn too_large_too_long_and_cut_off_are_errors() {
        for bytes in [&[][..], &[0x7f], &[0x7f, 0x80, 0xff]] {
            assert!(
                matches!(decode(&mut &bytes[..], 7), Err(Error::Malformed(why)) if why != "an integer exceeds 32 bits")
            );
        }
        assert_eq!(decode(&mut &encoded(7, u32::MAX as usize + 1)[..], 7), Err(TOO_LARGE));
        assert_eq!(decode(&mut &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00][..], 7), Err(TOO_LARGE));
    }
}
