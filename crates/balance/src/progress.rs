use std::time::Duration;

use crate::Time;

/// When a silent connection is suspected, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgressSettings {
    /// A call has been sent and no byte has come for this long: the peer is asked for a sign of life (an HTTP/2
    /// PING), and pickers prefer other endpoints until it comes. Default 100 ms.
    pub suspect_after: Duration,
    /// The sign has not come for this long: the endpoint gets no more calls until it does. Default 200 ms. Too short,
    /// and a busy machine's scheduling looks like a stall; that costs nothing but a moment without the endpoint.
    pub stall_after: Duration,
    /// Still no byte for this long: the connection is closed and its calls fail. Default 20 s, gRPC's keepalive
    /// time-out.
    pub give_up_after: Duration,
}

impl Default for ProgressSettings {
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_millis(100),
            stall_after: Duration::from_millis(200),
            give_up_after: Duration::from_secs(20),
        }
    }
}

/// Probes sent without an application byte in return. Servers count pings between their own frames and hang up on
/// the third (gRFC A8), so that slow calls must not be mistaken for an invitation to ping on.
const MAX_UNREWARDED_PROBES: u32 = 2;
/// A ping that comes this long after the last one is none that servers count: they permit one in five minutes.
const PERMITTED_INTERVAL: Duration = Duration::from_secs(310);

/// Tells a hung peer from a slow one, connection by connection.
///
/// A process that is stopped, swapping or cut off keeps its sockets: connecting to it succeeds and calls to it hang. A
/// slow one still answers pings. So: calls sent and no byte back → probe; no answer → stalled; a byte → recovered.
///
/// ```text
///          sent, silent for          no byte for              no byte for
///          suspect_after             stall_after              give_up_after
///   WELL ────────────────► PROBING ───────────────► STALLED ────────────────► dead
///     ▲                       │                         │
///     └───────────────────────┴──────── any byte ───────┘
/// ```
#[derive(Debug)]
pub struct Progress {
    settings: ProgressSettings,
    state: State,
    /// Probes since the last reply.
    unrewarded: u32,
    probed_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Well,
    Probing { since: Time },
    Stalled { since: Time },
}

/// What a connection has seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// When the first call was sent since the last byte came in; `None` if none was.
    pub unanswered_since: Option<Time>,
    /// When the last byte came in.
    pub received_at: Time,
    /// When the last reply headers or data came in.
    pub replied_at: Time,
}

/// What a driver does about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Well,
    /// Send a PING.
    Probe,
    /// Report the connection as stalled.
    Stalled,
    /// Report it as recovered.
    Recovered,
    /// Close it.
    Dead,
}

impl Progress {
    /// A fresh connection's.
    pub fn new(settings: ProgressSettings) -> Self {
        Self { settings, state: State::Well, unrewarded: 0, probed_at: Time::ZERO }
    }

    /// Judges the connection by its traffic. Each change of state is told once.
    pub fn judge(&mut self, now: Time, traffic: &Traffic) -> Verdict {
        let settings = self.settings;
        match self.state {
            State::Probing { since } if traffic.received_at >= since => {
                self.state = State::Well;
                Verdict::Well
            }
            State::Stalled { since } if traffic.received_at >= since => {
                self.state = State::Well;
                Verdict::Recovered
            }
            State::Well if self.suspect_at(traffic).is_some_and(|at| at <= now) => {
                self.state = State::Probing { since: now };
                self.unrewarded = if self.is_rewarded(traffic) { 1 } else { self.unrewarded + 1 };
                self.probed_at = now;
                Verdict::Probe
            }
            State::Probing { since } if since + settings.stall_after <= now => {
                self.state = State::Stalled { since };
                Verdict::Stalled
            }
            State::Stalled { since } if since + settings.give_up_after <= now => Verdict::Dead,
            _ => Verdict::Well,
        }
    }

    /// Whether the peer owes a sign of life.
    pub fn is_suspect(&self) -> bool {
        self.state != State::Well
    }

    /// When to judge again if no byte comes until then.
    pub fn next_timeout(&self, traffic: &Traffic) -> Option<Time> {
        match self.state {
            State::Well => self.suspect_at(traffic),
            State::Probing { since } => Some(since + self.settings.stall_after),
            State::Stalled { since } => Some(since + self.settings.give_up_after),
        }
    }

    fn suspect_at(&self, traffic: &Traffic) -> Option<Time> {
        let silent = traffic.unanswered_since? + self.settings.suspect_after;
        let may_probe = self.unrewarded < MAX_UNREWARDED_PROBES || self.is_rewarded(traffic);
        Some(if may_probe { silent } else { silent.max(self.probed_at + PERMITTED_INTERVAL) })
    }

    /// Whether a reply has come since the last probe, so that the peer's count of our pings has begun anew.
    fn is_rewarded(&self, traffic: &Traffic) -> bool {
        traffic.replied_at > self.probed_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn traffic(unanswered: Option<u64>, received: u64, replied: u64) -> Traffic {
        Traffic { unanswered_since: unanswered.map(at), received_at: at(received), replied_at: at(replied) }
    }

    #[test]
    fn a_hung_peer_is_probed_then_stalled_then_recovers_with_its_first_byte() {
        let mut progress = Progress::new(ProgressSettings::default());
        let silent = traffic(Some(100), 90, 90);
        assert_eq!(progress.next_timeout(&silent), Some(at(200)));
        assert_eq!(progress.judge(at(199), &silent), Verdict::Well);
        assert_eq!(progress.judge(at(200), &silent), Verdict::Probe);
        assert!(progress.is_suspect());
        assert_eq!(progress.judge(at(399), &silent), Verdict::Well);
        assert_eq!(progress.judge(at(400), &silent), Verdict::Stalled);
        assert_eq!(progress.judge(at(401), &silent), Verdict::Well, "told once");
        assert_eq!(progress.judge(at(3_000), &traffic(None, 2_999, 2_999)), Verdict::Recovered);
        assert!(!progress.is_suspect());
        assert_eq!(progress.judge(at(3_001), &traffic(None, 2_999, 2_999)), Verdict::Well);
    }

    #[test]
    fn silence_without_end_is_death() {
        let mut progress = Progress::new(ProgressSettings::default());
        let silent = traffic(Some(0), 0, 0);
        // Bytes before the probe are no answer to it.
        assert_eq!(progress.judge(at(100), &silent), Verdict::Probe);
        assert_eq!(progress.judge(at(300), &silent), Verdict::Stalled);
        assert_eq!(progress.next_timeout(&silent), Some(at(20_100)));
        assert_eq!(progress.judge(at(20_100), &silent), Verdict::Dead);
    }

    #[test]
    fn a_slow_peer_that_answers_pings_is_well_and_not_pinged_to_death() {
        let mut progress = Progress::new(ProgressSettings::default());
        let mut probes = 0;
        // A long poll a second, none of which is answered; each ping is.
        let mut seen = traffic(None, 0, 0);
        for second in 1..60_u64 {
            seen.unanswered_since = Some(at(second * 1_000));
            for millis in (0..1_000).step_by(10) {
                let now = at(second * 1_000 + millis);
                match progress.judge(now, &seen) {
                    Verdict::Probe => {
                        probes += 1;
                        seen = Traffic { unanswered_since: None, received_at: now, ..seen };
                    }
                    Verdict::Well => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(probes, MAX_UNREWARDED_PROBES);
        assert_eq!(progress.judge(at(99_000), &traffic(Some(98_000), 0, 0)), Verdict::Well);
        let permitted = progress.next_timeout(&traffic(Some(98_000), 0, 0)).unwrap();
        assert!(permitted > at(300_000), "servers permit a ping in five minutes, whatever is outstanding");
        assert_eq!(progress.judge(at(99_000), &traffic(Some(98_000), 97_000, 97_000)), Verdict::Probe);
    }
}
