use std::collections::BTreeMap;

/// What a server says of its own load, with a response or out of band (gRFC A51, ORCA).
///
/// A value that the server did not give is 0, as in the protocol.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The share of its CPUs that the server uses; above 1 where it has more than it was granted.
    pub cpu_utilization: f64,
    /// The share of its memory that the server uses, 0 to 1.
    pub memory_utilization: f64,
    /// How busy the application says it is, by a measure of its own; may exceed 1.
    pub application_utilization: f64,
    /// Calls a second.
    pub qps: f64,
    /// Failed calls a second.
    pub eps: f64,
    /// The use of further resources by name, 0 to 1.
    pub utilization: BTreeMap<String, f64>,
    /// What this one call cost, by name. Empty out of band.
    pub request_cost: BTreeMap<String, f64>,
    /// Values of the application's own.
    pub named_metrics: BTreeMap<String, f64>,
}

impl LoadReport {
    /// The value that a config names (gRFC A114): a field such as `cpu_utilization`, or an entry of a map such as
    /// `named_metrics.queue`; `None` where the report has no such value.
    pub fn metric(&self, name: &str) -> Option<f64> {
        match name {
            "cpu_utilization" => Some(self.cpu_utilization),
            "mem_utilization" | "memory_utilization" => Some(self.memory_utilization),
            "application_utilization" => Some(self.application_utilization),
            "rps_fractional" | "qps" => Some(self.qps),
            "eps" => Some(self.eps),
            _ => {
                let (map, key) = name.split_once('.')?;
                match map {
                    "utilization" => self.utilization.get(key),
                    "named_metrics" => self.named_metrics.get(key),
                    "request_cost" => self.request_cost.get(key),
                    _ => None,
                }
                .copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a114_values_are_found_by_name() {
        let report = LoadReport {
            cpu_utilization: 0.5,
            named_metrics: BTreeMap::from([("queue.depth".to_owned(), 7.0)]),
            ..LoadReport::default()
        };
        assert_eq!(report.metric("cpu_utilization"), Some(0.5));
        assert_eq!(report.metric("named_metrics.queue.depth"), Some(7.0), "the first dot parts map and key");
        assert_eq!((report.metric("named_metrics.x"), report.metric("queue.depth")), (None, None));
    }
}
