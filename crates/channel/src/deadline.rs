use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue, header::HeaderName};

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time-out that a caller has set, if it has and it is well-formed: at most 8 digits and one of `HMSmun`.
///
/// A malformed one goes to the server untouched, whose business it is to refuse it.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// `timeout` as a header value, in the finest unit whose number has at most 8 digits, rounded up.
pub(crate) fn header(timeout: Duration) -> HeaderValue {
    const UNITS: [(u128, &str); 6] = [
        (1, "n"),
        (1_000, "u"),
        (1_000_000, "m"),
        (1_000_000_000, "S"),
        (60_000_000_000, "M"),
        (3_600_000_000_000, "H"),
    ];
    let nanos = timeout.as_nanos();
    let fitting =
        UNITS.iter().map(|(size, unit)| (nanos.div_ceil(*size), *unit)).find(|(amount, _)| *amount <= 99_999_999);
    let (amount, unit) = fitting.unwrap_or((99_999_999, "H"));
    let text = Display { amount, unit }.to_string();
    HeaderValue::try_from(text).expect("digits and a letter are a header value")
}

struct Display {
    amount: u128,
    unit: &'static str,
}

impl fmt::Display for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.amount, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_str(value).unwrap())]))
    }

    #[test]
    fn well_formed_values_are_read_and_others_left_alone() {
        assert_eq!(parsed("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "1", "abc", "-1S", "1x", "123456789n", "1.5S", "é"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn written_values_are_never_shorter_and_read_back() {
        for nanos in [0, 1, 99_999_999, 100_000_000, 1_234_567_890_123, u64::MAX] {
            let duration = Duration::from_nanos(nanos);
            let back = parsed(header(duration).to_str().unwrap()).unwrap();
            assert!(
                back >= duration && back <= duration.mul_f64(1.001) + Duration::from_nanos(1),
                "{duration:?} {back:?}"
            );
        }
    }
}
