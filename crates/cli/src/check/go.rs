//! How Go writes flags' values: grpc-health-probe is a Go program, and its command lines and its output are in these
//! forms.

use std::{fmt, str::FromStr, time::Duration};

/// A flag that is on or off, as `strconv.ParseBool` reads it.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither true nor false".to_owned()),
    }
}

/// A span of time in nanoseconds, which may be negative: `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoDuration(i64);

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// The same as Rust has it; `None` where it is not above zero.
    pub(super) fn positive(self) -> Option<Duration> {
        u64::try_from(self.0).ok().filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Numbers with units, such as `1h30m` or `-1.5s`. Only 0 needs no unit.
impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        let wrong = || format!("{text:?} is no duration such as 1s, 500ms or 1m30s");
        let mut nanos: i64 = 0;
        loop {
            let part;
            (part, rest) = leading_part(rest).ok_or_else(wrong)?;
            nanos = nanos.checked_add(part).ok_or_else(wrong)?;
            if rest.is_empty() {
                return Ok(Self(sign * nanos));
            }
        }
    }
}

/// The nanoseconds of the first number with its unit, and what follows.
fn leading_part(text: &str) -> Option<(i64, &str)> {
    let end_of_number = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(end_of_number);
    let end_of_unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end_of_unit);
    let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some((whole.checked_mul(size)?.checked_add(fraction_of(fraction, size))?, rest))
}

/// The decimal fraction of a unit, in whole nanoseconds; digits beyond what counts are of no use.
fn fraction_of(digits: &str, unit: i64) -> i64 {
    let digits: String = digits.chars().take(15).collect();
    let scale = 10_i128.pow(u32::try_from(digits.len()).unwrap_or(0));
    let number: i128 = digits.parse().unwrap_or(0);
    i64::try_from(number * i128::from(unit) / scale).unwrap_or(0)
}

/// As Go prints it: `1m30s`, `1.5s`, `250ms`, `12.3µs`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (size, unit) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => return fmt_seconds(nanos, f),
        };
        write!(f, "{}{unit}", decimal(nanos, size))
    }
}

fn fmt_seconds(nanos: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SECOND: u64 = 1_000_000_000;
    let minutes = nanos / SECOND / 60;
    if minutes >= 60 {
        write!(f, "{}h", minutes / 60)?;
    }
    if minutes > 0 {
        write!(f, "{}m", minutes % 60)?;
    }
    write!(f, "{}s", decimal(nanos % (60 * SECOND), SECOND))
}

/// `value / size` without zeros at its end.
fn decimal(value: u64, size: u64) -> String {
    let digits = size.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / size, value % size);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A text in double quotes, with what does not print escaped: Go's `%q`.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c.is_ascii_control() => quoted.extend(format!("\\x{:02x}", u32::from(c)).chars()),
            c if c.is_control() => quoted.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<i64> {
        text.parse::<GoDuration>().ok().map(|duration| duration.0)
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("+5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("0.3ns", 0),
            ("1.0000000000000000001s", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        for bad in ["", "1", "s", "1d", "1.2.3s", ".s", "1s ", "-", "9223372036854775808ns", "1s-1s", "300y"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_000_000_000, "-1m30s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
        }
    }

    #[test]
    fn quotes_escape_what_does_not_print() {
        assert_eq!(quoted("a\"b\\\n\u{1b}é"), r#""a\"b\\\n\x1bé""#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in any::<i64>().prop_filter("has a magnitude", |n| *n != i64::MIN)) {
            prop_assert_eq!(parse(&GoDuration(nanos).to_string()), Some(nanos));
        }
    }
}
