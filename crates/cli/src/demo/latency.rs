use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::record::Call;

/// How long calls took; nothing where there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    #[serde(serialize_with = "as_ms")]
    pub(super) p50: Option<Duration>,
    #[serde(serialize_with = "as_ms")]
    pub(super) p99: Option<Duration>,
    #[serde(serialize_with = "as_ms")]
    pub(super) max: Option<Duration>,
}

impl Latency {
    /// Of those calls that were answered.
    pub(super) fn of<'a>(calls: impl Iterator<Item = &'a Call>) -> Self {
        // From 1 µs to 10 min, longer than any call is waited for, at 3 digits.
        let mut micros = Histogram::<u32>::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order");
        for call in calls.filter(|call| call.outcome.is_ok()) {
            let took = call.end.saturating_sub(call.start).as_micros();
            micros.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
        }
        if micros.is_empty() {
            return Self::default();
        }
        let quantile = |quantile| Some(Duration::from_micros(micros.value_at_quantile(quantile)));
        Self { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1.0) }
    }
}

/// A duration in milliseconds, to the microsecond.
#[allow(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(super) fn as_ms<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| (duration.as_secs_f64() * 1e6).round() / 1e3).serialize(serializer)
}

/// A duration in a unit and with digits that a person takes in: `0.42 ms`, `38 ms`, `1.27 s`; `–` for none.
pub(super) fn show(duration: Option<Duration>) -> String {
    match duration.map(|duration| duration.as_secs_f64() * 1e3) {
        None => "–".to_owned(),
        Some(ms) if ms < 0.995 => format!("{ms:.2} ms"),
        Some(ms) if ms < 9.95 => format!("{ms:.1} ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::Face, *};

    fn call(millis: u64, outcome: Result<usize, String>) -> Call {
        Call { face: Face::Proxy, start: Duration::ZERO, end: Duration::from_millis(millis), outcome }
    }

    #[test]
    fn percentiles_are_of_answered_calls() {
        let mut calls: Vec<_> = (1..=100).map(|millis| call(millis, Ok(0))).collect();
        calls.push(call(9_000, Err("lost".into())));
        let Latency { p50, p99, max } = Latency::of(calls.iter());
        for (got, expected) in [(p50, 50), (p99, 99), (max, 100)] {
            let off = got.unwrap().abs_diff(Duration::from_millis(expected));
            assert!(off < Duration::from_micros(100), "{got:?} for {expected} ms");
        }
        assert_eq!(Latency::of([].into_iter()), Latency::default());
    }

    #[test]
    fn durations_for_people() {
        assert_eq!(show(None), "–");
        let shown = [424, 2_340, 38_400, 999_400, 1_270_000].map(|micros| show(Some(Duration::from_micros(micros))));
        assert_eq!(shown, ["0.42 ms", "2.3 ms", "38 ms", "999 ms", "1.27 s"]);
    }
}
