use std::{fmt, marker::PhantomData, time::Duration};

use serde::{Deserializer, de};

/// The longest duration, in hours: a century, so that no sum of a few overflows a clock.
const LONGEST: f64 = 876_000.0;

/// A duration as people write it: a number and `ms`, `s`, `m` or `h`, such as `10s`, `1.5m` or `500ms`. A century at
/// most.
///
/// # Errors
///
/// Says what is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is no duration such as 10s or 500ms");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(refused()),
    };
    let number: f64 = number.parse().map_err(|_| refused())?;
    if number * seconds > LONGEST * 3_600.0 {
        return Err(format!("{text:?} is too long: the longest is {LONGEST}h"));
    }
    Duration::try_from_secs_f64(number * seconds).map_err(|error| format!("{text:?}: {error}"))
}

/// Reads a duration, or an optional one, from a string.
pub(crate) fn read<'de, D: Deserializer<'de>, T: From<Duration>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(Reader(PhantomData))
}

struct Reader<T>(PhantomData<T>);

impl<T: From<Duration>> de::Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"10s\" or \"500ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        parse_duration(text).map(T::from).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["10", "s", "-1s", "1d", "", "1.2.3s", "876001h", "4000000000000000h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
