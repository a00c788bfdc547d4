use std::time::Duration;

/// What `grpc-timeout` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// So long from now.
    After(Duration),
    /// Nothing that gRPC knows.
    Malformed,
}

impl Timeout {
    /// Reads the header's value: 1 to 8 digits and one of `HMSmun`.
    pub fn parse(value: &[u8]) -> Self {
        let Some((unit, digits)) = value.split_last() else { return Self::Malformed };
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
            return Self::Malformed;
        }
        let amount = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        Self::After(match unit {
            b'H' => Duration::from_secs(amount * 3_600),
            b'M' => Duration::from_secs(amount * 60),
            b'S' => Duration::from_secs(amount),
            b'm' => Duration::from_millis(amount),
            b'u' => Duration::from_micros(amount),
            b'n' => Duration::from_nanos(amount),
            _ => return Self::Malformed,
        })
    }
}

/// Writes `timeout` as the header's value, in the finest unit whose number has at most 8 digits, rounded up.
pub fn write_timeout(timeout: Duration, out: &mut Vec<u8>) {
    const UNITS: [(u128, u8); 6] = [
        (1, b'n'),
        (1_000, b'u'),
        (1_000_000, b'm'),
        (1_000_000_000, b'S'),
        (60_000_000_000, b'M'),
        (3_600_000_000_000, b'H'),
    ];
    let nanos = timeout.as_nanos();
    let mut fitting = UNITS.iter().map(|(size, unit)| (nanos.div_ceil(*size), *unit));
    let (amount, unit) = fitting.find(|(amount, _)| *amount <= 99_999_999).unwrap_or((99_999_999, b'H'));
    out.extend_from_slice(amount.to_string().as_bytes());
    out.push(unit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_values_are_read_and_others_are_not() {
        assert_eq!(Timeout::parse(b"100m"), Timeout::After(Duration::from_millis(100)));
        assert_eq!(Timeout::parse(b"0n"), Timeout::After(Duration::ZERO));
        assert_eq!(Timeout::parse(b"99999999H"), Timeout::After(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "1", "abc", "-1S", "1x", "123456789n", "1.5S", "m"] {
            assert_eq!(Timeout::parse(bad.as_bytes()), Timeout::Malformed, "{bad}");
        }
    }

    #[test]
    fn written_values_are_never_shorter_and_read_back() {
        for nanos in [0, 1, 99_999_999, 100_000_000, 1_234_567_890_123, u64::MAX] {
            let timeout = Duration::from_nanos(nanos);
            let mut value = Vec::new();
            write_timeout(timeout, &mut value);
            let Timeout::After(back) = Timeout::parse(&value) else { panic!("{value:?}") };
            assert!(
                back >= timeout && back <= timeout.mul_f64(1.001) + Duration::from_nanos(1),
                "{timeout:?} {back:?}"
            );
        }
    }
}
