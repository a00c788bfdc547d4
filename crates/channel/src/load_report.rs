//! What servers say of their load, as it comes over the wire (gRFC A51, ORCA).

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use evenkeel_balance::LoadReport;
use evenkeel_proto::orca::OrcaLoadReport;
use http::HeaderMap;
use prost::Message;

/// The trailer in which servers report their load with a response (gRFC A51).
pub const LOAD_REPORT_TRAILER: &str = "endpoint-load-metrics-bin";
/// The longest report that is read, in bytes. Real ones have a few dozen.
pub(crate) const MAX_REPORT: usize = 64 * 1024;

/// The report in a response's trailers. One that cannot be read is none: it must not fail a call that succeeded.
pub(crate) fn in_trailers(trailers: &HeaderMap) -> Option<LoadReport> {
    read_load_report(trailers.get(LOAD_REPORT_TRAILER)?.as_bytes())
}

/// The report in a value of [`LOAD_REPORT_TRAILER`], as it comes over the wire: Base64 with or without padding. `None`
/// where it cannot be read or has more than 64 KiB, which must not fail a call that succeeded.
pub fn read_load_report(text: &[u8]) -> Option<LoadReport> {
    if text.len() > MAX_REPORT {
        return None;
    }
    let unpadded = text.trim_ascii_end();
    let unpadded = unpadded.strip_suffix(b"==").or_else(|| unpadded.strip_suffix(b"=")).unwrap_or(unpadded);
    decode(&STANDARD_NO_PAD.decode(unpadded).ok()?)
}

/// The report in a message; `None` where it is not one.
pub(crate) fn decode(message: &[u8]) -> Option<LoadReport> {
    let report = OrcaLoadReport::decode(message).ok()?;
    let mut read = LoadReport::default();
    read.cpu_utilization = report.cpu_utilization;
    read.memory_utilization = report.mem_utilization;
    read.application_utilization = report.application_utilization;
    read.qps = report.rps_fractional;
    read.eps = report.eps;
    read.utilization = report.utilization.into_iter().collect();
    read.request_cost = report.request_cost.into_iter().collect();
    read.named_metrics = report.named_metrics.into_iter().collect();
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(LOAD_REPORT_TRAILER), value.parse().unwrap())])
    }

    #[test]
    fn a51_reports_are_read_with_and_without_padding() {
        let report = OrcaLoadReport {
            cpu_utilization: 0.5,
            named_metrics: [("queue".to_owned(), 3.0)].into(),
            ..OrcaLoadReport::default()
        };
        let text = STANDARD_NO_PAD.encode(report.encode_to_vec());
        let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
        for value in [&text, &padded] {
            let read = in_trailers(&trailers(value)).unwrap();
            assert_eq!((read.metric("cpu_utilization"), read.metric("named_metrics.queue")), (Some(0.5), Some(3.0)));
        }
        for foreign in ["", "*", "AAAA=A", "////"] {
            assert!(in_trailers(&trailers(foreign)).is_none_or(|report| report == LoadReport::default()), "{foreign}");
        }
        assert_eq!(in_trailers(&HeaderMap::new()), None);
    }
}
