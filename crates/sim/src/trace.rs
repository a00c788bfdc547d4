use std::{fmt, time::Duration};

use evenkeel_balance::{Code, Time};

/// What happened in a simulation.
///
/// Its text ([`Display`](fmt::Display)) holds all of it, one line an event, and is the same byte for byte whenever
/// the scenario is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// Every call, in the order of arrival.
    pub calls: Vec<CallRecord>,
    /// What became of connections, in order.
    pub connections: Vec<ConnectionRecord>,
    /// Calls that the core took to be in flight on each server when all had ended: 0, or something leaks.
    pub in_flight: Vec<u32>,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRecord {
    /// When it was made.
    pub arrived: Time,
    /// When a picker placed it, and on which server; `None` if none ever did.
    pub picked: Option<(Time, usize)>,
    /// When it ended.
    pub ended: Time,
    /// How it ended.
    pub code: Code,
}

/// One thing that befell a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// When.
    pub at: Time,
    /// To which server the connection leads.
    pub server: usize,
    /// What.
    pub event: ConnectionEvent,
}

/// What can befall a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The core wanted it.
    Dialled,
    /// It was made.
    Connected,
    /// It was refused, it broke, or it was given up as dead.
    Lost,
    /// The core closed it.
    Closed,
    /// It fell silent.
    Stalled,
    /// It spoke again.
    Recovered,
}

impl Trace {
    /// How many calls were placed on `server`.
    pub fn picks(&self, server: usize) -> usize {
        self.picks_between(server, Duration::ZERO, Duration::MAX)
    }

    /// How many calls were placed on `server` from `from` to just before `until`.
    pub fn picks_between(&self, server: usize, from: Duration, until: Duration) -> usize {
        let span = Time::ZERO + from..Time::ZERO + until;
        let picks = self.calls.iter().filter_map(|call| call.picked);
        picks.filter(|(at, picked)| *picked == server && span.contains(at)).count()
    }

    /// The calls that did not end well.
    pub fn failures(&self) -> impl Iterator<Item = &CallRecord> {
        self.calls.iter().filter(|call| call.code != Code::Ok)
    }

    /// When `event` befell connections to `server`.
    pub fn connection_events(&self, server: usize, event: ConnectionEvent) -> impl Iterator<Item = Time> {
        let records = self.connections.iter().filter(move |record| record.server == server && record.event == event);
        records.map(|record| record.at)
    }

    /// The latency, from arrival to end, within which `percent` of a hundred calls ended well; `None` without such
    /// calls. Above 100 counts as 100.
    pub fn latency(&self, percent: usize) -> Option<Duration> {
        let well = self.calls.iter().filter(|call| call.code == Code::Ok);
        let mut latencies: Vec<_> = well.map(|call| call.ended.since(call.arrived)).collect();
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        latencies.get(last * percent.min(100) / 100).copied()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "calls {} failed {}", self.calls.len(), self.failures().count())?;
        for percent in [50, 90, 99, 100] {
            if let Some(latency) = self.latency(percent) {
                writeln!(f, "latency p{percent} {}us", latency.as_micros())?;
            }
        }
        for (server, in_flight) in self.in_flight.iter().enumerate() {
            writeln!(f, "server {server} picks {} in_flight {in_flight}", self.picks(server))?;
        }
        for ConnectionRecord { at, server, event } in &self.connections {
            writeln!(f, "connection {at} server {server} {event}")?;
        }
        self.calls.iter().try_for_each(|call| writeln!(f, "{call}"))
    }
}

impl fmt::Display for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} ", self.arrived)?;
        match self.picked {
            Some((at, server)) => write!(f, "picked {at} server {server} ")?,
            None => write!(f, "never picked ")?,
        }
        write!(f, "ended {} {}", self.ended, self.code)
    }
}

impl fmt::Display for ConnectionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialled => "dialled",
            Self::Connected => "connected",
            Self::Lost => "lost",
            Self::Closed => "closed",
            Self::Stalled => "stalled",
            Self::Recovered => "recovered",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// Two calls that end well, on servers 0 and 1, and one that is never placed.
    fn trace() -> Trace {
        let call = |picked, ended, code| CallRecord { arrived: at(0), picked, ended: at(ended), code };
        let connected = ConnectionRecord { at: at(1), server: 1, event: ConnectionEvent::Connected };
        Trace {
            calls: vec![
                call(Some((at(1), 0)), 10, Code::Ok),
                call(Some((at(2), 1)), 30, Code::Ok),
                call(None, 50, Code::DeadlineExceeded),
            ],
            connections: vec![connected],
            in_flight: vec![0, 0],
        }
    }

    #[test]
    fn picks_are_counted_by_server_and_time() {
        let trace = trace();
        assert_eq!([0, 1, 2].map(|server| trace.picks(server)), [1, 1, 0]);
        let millis = Duration::from_millis;
        assert_eq!(trace.picks_between(1, millis(2), millis(3)), 1);
        assert_eq!(trace.picks_between(1, millis(0), millis(2)), 0, "the end is not part of the span");
    }

    #[test]
    fn latencies_are_those_of_calls_that_ended_well() {
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!([0, 99, 100, 101].map(|percent| trace().latency(percent)), [10, 10, 30, 30].map(millis));
        assert_eq!(Trace::default().latency(50), None);
    }

    #[test]
    fn the_text_holds_everything() {
        let expected = "\
calls 3 failed 1
latency p50 10000us
latency p90 10000us
latency p99 10000us
latency p100 30000us
server 0 picks 1 in_flight 0
server 1 picks 1 in_flight 0
connection 0.001000000s server 1 connected
call 0.000000000s picked 0.001000000s server 0 ended 0.010000000s OK
call 0.000000000s picked 0.002000000s server 1 ended 0.030000000s OK
call 0.000000000s never picked ended 0.050000000s DEADLINE_EXCEEDED
";
        assert_eq!(trace().to_string(), expected);
    }
}
