use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    net::SocketAddr,
    time::Duration,
};

use serde::Serialize;

use super::{
    latency::{Latency, as_ms, show},
    record::{Call, Face, Performed, Plan, Record},
    script::BACKENDS,
};

/// What a run came to: printed as a table for people, and as JSON for machines.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Whether every call was answered: calls may be retried, so a correct balancer saves each one of them.
    pub(super) passed: bool,
    plan: Plan,
    backends: Vec<BackendSummary>,
    faces: PerFace<FaceSummary>,
    acts: Vec<ActSummary>,
    /// Every process that served.
    pids: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct BackendSummary {
    name: &'static str,
    address: SocketAddr,
}

#[derive(Debug, Serialize)]
struct PerFace<T> {
    proxy: T,
    channel: T,
}

#[derive(Debug, Serialize)]
struct FaceSummary {
    calls: usize,
    failed: u64,
    /// How many calls failed of each cause.
    causes: BTreeMap<String, u64>,
    /// Of the calls that were answered.
    #[serde(rename = "latency_ms")]
    latency: Latency,
    /// How many calls each backend answered.
    answered_by: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Serialize)]
struct ActSummary {
    name: &'static str,
    backend: &'static str,
    #[serde(skip)]
    title: String,
    proxy: FaceHealing,
    channel: FaceHealing,
}

#[derive(Debug, Serialize)]
struct FaceHealing {
    #[serde(flatten)]
    healing: Healing,
    /// Calls that the backend answered although they were sent while it was out of rotation.
    calls_while_out: usize,
    /// Calls that the backend held through the fault: sent before it was noticed, answered after the repair.
    calls_held: usize,
}

impl Summary {
    pub(super) fn of(record: &Record) -> Self {
        let faces = PerFace { proxy: face_summary(record, Face::Proxy), channel: face_summary(record, Face::Channel) };
        let backends = BACKENDS.into_iter().zip(&record.addresses);
        Self {
            passed: faces.proxy.failed + faces.channel.failed == 0,
            plan: record.plan.clone(),
            backends: backends.map(|(name, &address)| BackendSummary { name, address }).collect(),
            faces,
            acts: act_summaries(record),
            pids: record.pids.clone(),
        }
    }
}

fn face_summary(record: &Record, face: Face) -> FaceSummary {
    let calls = || record.calls.iter().filter(|call| call.face == face);
    let mut causes = BTreeMap::new();
    for cause in calls().filter_map(|call| call.outcome.as_ref().err()) {
        *causes.entry(cause.clone()).or_default() += 1;
    }
    let by = |backend| calls().filter(|call| call.outcome == Ok(backend)).count();
    FaceSummary {
        calls: calls().count(),
        failed: causes.values().sum(),
        causes,
        latency: Latency::of(calls()),
        answered_by: BACKENDS.into_iter().enumerate().map(|(backend, name)| (name, by(backend))).collect(),
    }
}

fn act_summaries(record: &Record) -> Vec<ActSummary> {
    let acts = record.acts.iter().zip(&record.performed);
    let summaries = acts.map(|(act, &performed)| {
        let face = |face| face_healing(record, face, act.backend, performed);
        ActSummary {
            name: act.fault.name(),
            backend: BACKENDS[act.backend],
            title: act.title(),
            proxy: face(Face::Proxy),
            channel: face(Face::Channel),
        }
    });
    summaries.collect()
}

/// How one face took one fault. What did not happen is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Healing {
    /// From the fault until the backend had left the rotation.
    #[serde(rename = "detect_ms", serialize_with = "as_ms")]
    pub(super) detect: Option<Duration>,
    /// From the repair until the backend was READY again.
    #[serde(rename = "ready_ms", serialize_with = "as_ms")]
    pub(super) ready: Option<Duration>,
    /// From the repair until the backend first answered a call that was made after it.
    #[serde(rename = "return_ms", serialize_with = "as_ms")]
    pub(super) back: Option<Duration>,
}

impl Healing {
    pub(super) fn of(record: &Record, face: Face, backend: usize, performed: Performed) -> Self {
        let Some(fault) = performed.fault else { return Self::default() };
        let rotation = record.rotation(face);
        let out = rotation.out_at(backend, fault);
        let detect = out.map(|out| out.saturating_sub(fault));
        // A backend that never left has nowhere to return from.
        let (Some(repair), Some(out)) = (performed.repair, out) else { return Self { detect, ..Self::default() } };
        let ready = rotation.ready_at(backend, repair.max(out));
        // What starts after the repair ends after it: a view asks often, and need not look at the calls before.
        let later = &record.calls[record.calls.partition_point(|call| call.end < repair)..];
        let answered = |call: &&Call| call.face == face && call.outcome == Ok(backend) && call.start >= repair;
        let back = later.iter().find(answered).map(|call| call.end);
        let after_repair = |at: Duration| at.saturating_sub(repair);
        Self { detect, ready: ready.map(after_repair), back: back.map(after_repair) }
    }
}

fn face_healing(record: &Record, face: Face, backend: usize, performed: Performed) -> FaceHealing {
    let healing = Healing::of(record, face, backend, performed);
    let Some(((fault, repair), detect)) = performed.fault.zip(performed.repair).zip(healing.detect) else {
        return FaceHealing { healing, calls_while_out: 0, calls_held: 0 };
    };
    let out = fault + detect;
    let answered = || record.calls.iter().filter(|call| call.face == face && call.outcome == Ok(backend));
    FaceHealing {
        healing,
        calls_while_out: answered().filter(|call| call.start > out && call.start < repair).count(),
        calls_held: answered().filter(|call| call.start <= out && call.end > repair).count(),
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Plan { duration, rps, policy, seed } = &self.plan;
        writeln!(f, "{policy}, {rps} calls/s for {} s, seed {seed}\n", duration.as_secs_f64())?;
        writeln!(f, "{:10}{:>9}{:>9}{:>12}{:>12}{:>12}", "", "calls", "failed", "p50", "p99", "max")?;
        for (face, summary) in self.faces() {
            write_face(f, face, summary)?;
        }
        writeln!(f, "\n{:32}{:>20}{:>24}", "", "out of rotation", "takes calls again")?;
        writeln!(f, "{:32}{:>20}{:>24}", "", "after the fault", "after the repair")?;
        writeln!(f, "{:32}{:>10}{:>10}{:>14}{:>10}", "", "proxy", "channel", "proxy", "channel")?;
        for act in &self.acts {
            write_act(f, act)?;
        }
        writeln!(f)?;
        for act in &self.acts {
            write_notes(f, act)?;
        }
        self.write_verdict(f)
    }
}

impl Summary {
    fn faces(&self) -> [(Face, &FaceSummary); 2] {
        [(Face::Proxy, &self.faces.proxy), (Face::Channel, &self.faces.channel)]
    }

    fn write_verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.passed {
            let calls = self.faces.proxy.calls + self.faces.channel.calls;
            return writeln!(f, "No call failed: all {calls} were answered.");
        }
        writeln!(f, "Calls failed that retries and health checks should have saved:")?;
        for (face, summary) in self.faces() {
            for (cause, count) in &summary.causes {
                writeln!(f, "  {:8} {count:>6} × {cause}", face.name())?;
            }
        }
        Ok(())
    }
}

fn write_face(f: &mut Formatter<'_>, face: Face, summary: &FaceSummary) -> fmt::Result {
    let FaceSummary { calls, failed, latency, .. } = summary;
    let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(show);
    writeln!(f, "{:10}{calls:>9}{failed:>9}{p50:>12}{p99:>12}{max:>12}", face.name())
}

fn write_act(f: &mut Formatter<'_>, act: &ActSummary) -> fmt::Result {
    let healings = [act.proxy.healing, act.channel.healing];
    let [out_proxy, out_channel] = healings.map(|healing| show(healing.detect));
    let [back_proxy, back_channel] = healings.map(|healing| show(healing.back));
    writeln!(f, "{:32}{out_proxy:>10}{out_channel:>10}{back_proxy:>14}{back_channel:>10}", act.title)
}

/// Says which calls were slow for a reason, and which went where no call should: `pick_first`, for one, leaves health
/// out of account (gRFC A17).
fn write_notes(f: &mut Formatter<'_>, act: &ActSummary) -> fmt::Result {
    let backend = act.backend;
    let held = act.proxy.calls_held + act.channel.calls_held;
    if held > 0 {
        writeln!(f, "{held} calls sent to {backend} before its fault was noticed waited for the repair.")?;
    }
    let while_out = act.proxy.calls_while_out + act.channel.calls_while_out;
    if while_out > 0 {
        writeln!(f, "{while_out} calls were sent to {backend} although it was out of rotation.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evenkeel_balance::{Connectivity, Time};
    use serde_json::json;

    use super::{
        super::{rotation::Sight, script::script},
        *,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn turn(record: &mut Record, face: Face, moment: u64, state: Connectivity) {
        let sight = Sight { state, since: Time::from_nanos(moment), reason: String::new(), load: Arc::default() };
        record.rotation_mut(face).see(at(moment), 0, sight);
    }

    /// Backend `a` is killed at 2 s and started again at 4 s; the channel notices, the proxy does not.
    fn record() -> Record {
        let plan = Plan { duration: at(20_000), rps: 10, policy: "round_robin".into(), seed: 7 };
        let addresses = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut record = Record::new(plan, script(at(20_000)), addresses, vec![11, 12, 13, 14]);
        record.performed[0] = Performed { fault: Some(at(2_000)), repair: Some(at(4_000)) };
        for (moment, state) in [(0, Connectivity::Ready), (2_003, Connectivity::Idle), (4_600, Connectivity::Ready)] {
            turn(&mut record, Face::Channel, moment, state);
        }
        for start in [1_000, 4_610, 4_700] {
            record.add(Call { face: Face::Channel, start: at(start), end: at(start + 5), outcome: Ok(0) });
        }
        record
    }

    fn fail(record: &mut Record, cause: &str) {
        record.add(Call { face: Face::Proxy, start: at(1), end: at(2), outcome: Err(cause.to_owned()) });
    }

    #[test]
    fn json_says_what_machines_ask() {
        let json = serde_json::to_value(Summary::of(&record())).unwrap();
        assert_eq!(json["passed"], json!(true));
        assert_eq!(json["plan"], json!({ "duration_s": 20.0, "rps": 10, "policy": "round_robin", "seed": 7 }));
        assert_eq!(json["backends"][2], json!({ "name": "c", "address": "127.0.0.1:3" }));
        assert_eq!(json["pids"], json!([11, 12, 13, 14]));
        assert_eq!(json["faces"]["channel"]["calls"], json!(3));
        assert_eq!(json["faces"]["channel"]["answered_by"], json!({ "a": 3, "b": 0, "c": 0 }));
        assert_eq!(json["acts"][0]["name"], json!("kill"));
        assert_eq!(
            json["acts"][0]["channel"],
            json!({ "detect_ms": 3.0, "ready_ms": 600.0, "return_ms": 615.0, "calls_while_out": 0, "calls_held": 0 })
        );
        let unnoticed =
            json!({ "detect_ms": null, "ready_ms": null, "return_ms": null, "calls_while_out": 0, "calls_held": 0 });
        assert_eq!(json["acts"][0]["proxy"], unnoticed);
        assert_eq!(json["acts"][2]["channel"], unnoticed, "not performed yet");
    }

    #[test]
    fn one_failed_call_is_enough_not_to_pass() {
        let mut record = record();
        assert!(Summary::of(&record).passed);
        fail(&mut record, "Unavailable: connection reset");
        let summary = Summary::of(&record);
        assert!(!summary.passed);
        assert_eq!((summary.faces.proxy.calls, summary.faces.proxy.failed), (1, 1));
    }

    #[test]
    fn calls_that_a_fault_caught_are_told_from_those_sent_after_it_was_noticed() {
        let mut record = record();
        for start in [2_002, 2_500, 3_999, 4_000] {
            record.add(Call { face: Face::Channel, start: at(start), end: at(5_000), outcome: Ok(0) });
        }
        let summary = Summary::of(&record);
        let FaceHealing { calls_while_out, calls_held, .. } = summary.acts[0].channel;
        assert_eq!((calls_while_out, calls_held), (2, 1));
        let note = "1 calls sent to a before its fault was noticed waited for the repair.\n\
                    2 calls were sent to a although it was out of rotation.\n";
        assert!(summary.to_string().contains(note), "{summary}");
    }

    #[test]
    fn the_table_is_aligned_and_fits_80_columns() {
        let table = Summary::of(&record()).to_string();
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(
            table.contains("a: SIGKILL, then started again           –    3.0 ms             –    615 ms"),
            "{table}"
        );
        assert!(table.ends_with("No call failed: all 3 were answered.\n"), "{table}");
    }

    #[test]
    fn the_table_counts_failures_by_cause() {
        let mut record = record();
        for cause in ["Unavailable: reset", "Internal: oops", "Unavailable: reset"] {
            fail(&mut record, cause);
        }
        let table = Summary::of(&record).to_string();
        assert!(table.contains("  proxy         2 × Unavailable: reset\n"), "{table}");
        assert!(table.contains("  proxy         1 × Internal: oops\n"), "{table}");
    }
}
