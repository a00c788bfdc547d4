use std::collections::BTreeMap;
use std::fmt;

use evenkeel_proto::orca::OrcaLoadReport;

/// A metric that an application sets, on a [`Recorder`](crate::Recorder) for the server or on a
/// [`CallRecorder`](crate::CallRecorder) for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric<'a> {
    /// Share of the available processors in use: 0 or more; above 1 when overcommitted.
    CpuUtilization,
    /// Share of the available memory in use: 0 to 1.
    MemoryUtilization,
    /// How busy the application takes itself to be, as a share: 0 or more; above 1 when overcommitted. Policies that
    /// weigh endpoints prefer it to [`Metric::CpuUtilization`] (gRFC A58).
    ApplicationUtilization,
    /// Calls a second: 0 or more.
    Qps,
    /// Failed calls a second: 0 or more.
    Eps,
    /// Share in use of a resource of the application's own, by its name: 0 to 1.
    Utilization(&'a str),
}

impl Metric<'_> {
    fn is_share(self) -> bool {
        matches!(self, Self::MemoryUtilization | Self::Utilization(_))
    }
}

impl fmt::Display for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuUtilization => f.write_str("cpu utilization"),
            Self::MemoryUtilization => f.write_str("memory utilization"),
            Self::ApplicationUtilization => f.write_str("application utilization"),
            Self::Qps => f.write_str("qps"),
            Self::Eps => f.write_str("eps"),
            Self::Utilization(name) => write!(f, "utilization of {name:?}"),
        }
    }
}

/// A value that a metric cannot have; the one set before stays.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{metric} cannot be {value}: give a value {range}")]
pub struct OutOfRange {
    metric: String,
    value: f64,
    range: &'static str,
}

impl OutOfRange {
    fn new(metric: impl fmt::Display, value: f64, range: &'static str) -> Self {
        Self { metric: metric.to_string(), value, range }
    }
}

/// Metrics by name, those that are set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics {
    pub(crate) cpu_utilization: Option<f64>,
    pub(crate) memory_utilization: Option<f64>,
    pub(crate) application_utilization: Option<f64>,
    pub(crate) qps: Option<f64>,
    pub(crate) eps: Option<f64>,
    pub(crate) utilization: BTreeMap<String, f64>,
    pub(crate) request_cost: BTreeMap<String, f64>,
    pub(crate) named: BTreeMap<String, f64>,
}

impl Metrics {
    pub(crate) fn set(&mut self, metric: Metric<'_>, value: f64) -> Result<(), OutOfRange> {
        if metric.is_share() && !(0.0..=1.0).contains(&value) {
            return Err(OutOfRange::new(metric, value, "from 0 to 1"));
        }
        if !(value.is_finite() && value >= 0.0) {
            return Err(OutOfRange::new(metric, value, "of 0 or more"));
        }
        self.put(metric, Some(value));
        Ok(())
    }

    pub(crate) fn clear(&mut self, metric: Metric<'_>) {
        self.put(metric, None);
    }

    pub(crate) fn set_request_cost(&mut self, name: &str, cost: f64) -> Result<(), OutOfRange> {
        insert_finite(&mut self.request_cost, "request cost", name, cost)
    }

    pub(crate) fn set_named(&mut self, name: &str, value: f64) -> Result<(), OutOfRange> {
        insert_finite(&mut self.named, "metric", name, value)
    }

    /// These metrics, with those that `above` has in their place.
    pub(crate) fn under(mut self, above: &Self) -> Self {
        self.cpu_utilization = above.cpu_utilization.or(self.cpu_utilization);
        self.memory_utilization = above.memory_utilization.or(self.memory_utilization);
        self.application_utilization = above.application_utilization.or(self.application_utilization);
        self.qps = above.qps.or(self.qps);
        self.eps = above.eps.or(self.eps);
        self.utilization.extend(above.utilization.clone());
        self.request_cost.extend(above.request_cost.clone());
        self.named.extend(above.named.clone());
        self
    }

    /// As they go over the wire, where 0 stands for what is not set.
    pub(crate) fn into_report(self) -> OrcaLoadReport {
        OrcaLoadReport {
            cpu_utilization: self.cpu_utilization.unwrap_or_default(),
            mem_utilization: self.memory_utilization.unwrap_or_default(),
            application_utilization: self.application_utilization.unwrap_or_default(),
            rps_fractional: self.qps.unwrap_or_default(),
            eps: self.eps.unwrap_or_default(),
            utilization: self.utilization,
            request_cost: self.request_cost,
            named_metrics: self.named,
            ..OrcaLoadReport::default()
        }
    }

    fn put(&mut self, metric: Metric<'_>, value: Option<f64>) {
        match (metric, value) {
            (Metric::CpuUtilization, _) => self.cpu_utilization = value,
            (Metric::MemoryUtilization, _) => self.memory_utilization = value,
            (Metric::ApplicationUtilization, _) => self.application_utilization = value,
            (Metric::Qps, _) => self.qps = value,
            (Metric::Eps, _) => self.eps = value,
            (Metric::Utilization(name), Some(value)) => _ = self.utilization.insert(name.to_owned(), value),
            (Metric::Utilization(name), None) => _ = self.utilization.remove(name),
        }
    }
}

/// gRFC A51 gives these no range, but no reader can use a value that is not a number.
fn insert_finite(into: &mut BTreeMap<String, f64>, kind: &str, name: &str, value: f64) -> Result<(), OutOfRange> {
    if !value.is_finite() {
        return Err(OutOfRange::new(format_args!("{kind} {name:?}"), value, "that is finite"));
    }
    into.insert(name.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_reported_and_what_is_cleared_is_not() -> Result<(), OutOfRange> {
        let mut metrics = Metrics::default();
        let singles = [
            (Metric::CpuUtilization, 1.5),
            (Metric::MemoryUtilization, 1.0),
            (Metric::ApplicationUtilization, 2.0),
            (Metric::Qps, 30.0),
            (Metric::Eps, 4.0),
            (Metric::Utilization("disk"), 0.5),
        ];
        for (metric, value) in singles {
            metrics.set(metric, value)?;
        }
        metrics.set_request_cost("rows", 7.0)?;
        metrics.set_named("temperature", -8.0)?;
        let report = OrcaLoadReport {
            cpu_utilization: 1.5,
            mem_utilization: 1.0,
            application_utilization: 2.0,
            rps_fractional: 30.0,
            eps: 4.0,
            utilization: [("disk".to_owned(), 0.5)].into(),
            request_cost: [("rows".to_owned(), 7.0)].into(),
            named_metrics: [("temperature".to_owned(), -8.0)].into(),
            ..OrcaLoadReport::default()
        };
        assert_eq!(metrics.clone().into_report(), report);

        for (metric, _) in singles {
            metrics.clear(metric);
        }
        let rest = OrcaLoadReport {
            request_cost: report.request_cost,
            named_metrics: report.named_metrics,
            ..Default::default()
        };
        assert_eq!(metrics.into_report(), rest);
        Ok(())
    }

    #[test]
    fn what_is_out_of_range_is_refused_and_the_value_before_stays() -> Result<(), OutOfRange> {
        let mut metrics = Metrics::default();
        metrics.set(Metric::CpuUtilization, 0.3)?;
        metrics.set(Metric::Utilization("disk"), 0.3)?;
        metrics.set_request_cost("rows", 7.0)?;
        let before = metrics.clone();
        for value in [-0.1, f64::NAN, f64::INFINITY] {
            for metric in [Metric::CpuUtilization, Metric::ApplicationUtilization, Metric::Qps, Metric::Eps] {
                assert!(metrics.set(metric, value).is_err(), "{metric} {value}");
            }
        }
        for value in [-0.1, 1.1, f64::NAN] {
            for metric in [Metric::MemoryUtilization, Metric::Utilization("disk")] {
                assert!(metrics.set(metric, value).is_err(), "{metric} {value}");
            }
        }
        assert!(metrics.set_request_cost("rows", f64::NAN).is_err());
        assert!(metrics.set_named("rows", f64::NEG_INFINITY).is_err());
        assert_eq!(metrics, before);

        let refused = metrics.set(Metric::Utilization("disk"), 1.1).unwrap_err();
        assert_eq!(refused.to_string(), "utilization of \"disk\" cannot be 1.1: give a value from 0 to 1");
        Ok(())
    }

    #[test]
    fn the_metrics_above_win_name_by_name() -> Result<(), OutOfRange> {
        let (mut server, mut call) = (Metrics::default(), Metrics::default());
        server.set(Metric::CpuUtilization, 0.3)?;
        server.set(Metric::Qps, 10.0)?;
        server.set(Metric::Utilization("disk"), 0.3)?;
        server.set(Metric::Utilization("pool"), 0.4)?;
        call.set(Metric::CpuUtilization, 0.0)?;
        call.set(Metric::Utilization("disk"), 0.6)?;
        let merged = server.under(&call);
        assert_eq!((merged.cpu_utilization, merged.qps), (Some(0.0), Some(10.0)));
        assert_eq!(merged.utilization, [("disk".to_owned(), 0.6), ("pool".to_owned(), 0.4)].into());
        Ok(())
    }
}
