use std::{fmt, marker::PhantomData};

use serde::{Deserializer, de};

/// A number of bytes as people write it: a whole number and nothing, `B`, `KiB`, `MiB`, `GiB`, or `kB`, `MB`, `GB`.
///
/// # Errors
///
/// Says what is no such size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is no size such as 512MiB");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bytes: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(refused()),
    };
    number.parse().ok().and_then(|number: u64| number.checked_mul(bytes)).ok_or_else(refused)
}

/// Reads a size, or an optional one, from a string or a number of bytes.
pub(crate) fn read<'de, D: Deserializer<'de>, T: From<u64>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Reader(PhantomData))
}

struct Reader<T>(PhantomData<T>);

impl<T: From<u64>> de::Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"512MiB\", or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        parse_size(text).map(T::from).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<T, E> {
        u64::try_from(bytes).map(T::from).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_size("2MB"), Ok(2_000_000));
        assert_eq!(parse_size("4096"), Ok(4_096));
        for bad in ["", "MiB", "-1", "1.5GiB", "1TB", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
