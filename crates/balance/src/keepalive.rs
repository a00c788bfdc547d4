use std::time::Duration;

use crate::Time;

/// Whether and when a quiet connection is asked for a sign of life (gRFC A8).
///
/// Off by default, as in every gRPC: a server that does not expect pings hangs up on them. Its own settings must permit
/// them as often as this asks (grpc-go: `keepalive.EnforcementPolicy.MinTime`, default 5 minutes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepaliveSettings {
    /// No byte has come for this long: the peer is sent an HTTP/2 PING. Default `None`: never. Less than
    /// [`MIN_TIME`](Self::MIN_TIME) is taken as that.
    pub time: Option<Duration>,
    /// No byte has come for this long after the PING: the connection is closed and its calls fail. Default 20 s.
    pub timeout: Duration,
    /// Pings also while no stream is open. Default `false`: servers count such pings against the client unless they are
    /// told not to.
    pub without_calls: bool,
}

impl KeepaliveSettings {
    /// The least [`time`](Self::time), 10 s, so that a mistake does not become an attack.
    pub const MIN_TIME: Duration = Duration::from_secs(10);

    /// Pings after `time` without a byte, while calls run.
    pub fn every(time: Duration) -> Self {
        Self { time: Some(time), ..Self::default() }
    }

    /// The same with a `time` that gRPC permits.
    #[must_use]
    pub fn permitted(self) -> Self {
        Self { time: self.time.map(|time| time.max(Self::MIN_TIME)), ..self }
    }

    /// What later connections go by, once a server has found the pings of one that went by `used` too many: twice its
    /// time. Many that say so at once double it once.
    #[must_use]
    pub fn calmed(self, used: &Self) -> Self {
        let doubled = used.time.map(|time| time.saturating_mul(2));
        Self { time: self.time.max(doubled), ..self }
    }
}

impl Default for KeepaliveSettings {
    fn default() -> Self {
        Self { time: None, timeout: Duration::from_secs(20), without_calls: false }
    }
}

/// Finds out whether a quiet connection still leads anywhere.
///
/// [`Progress`](crate::Progress) watches for answers that calls wait for, within fractions of a second; this watches for
/// any byte at all, and keeps firewalls from forgetting the connection.
///
/// ```text
///           no byte for time, in use            no byte for timeout
///   QUIET ───────────────────────────► ASKED ───────────────────────► dead
///     ▲                                  │
///     └──────────── any byte ────────────┘
/// ```
#[derive(Debug)]
pub struct Keepalive {
    settings: KeepaliveSettings,
    /// When the PING was sent that has had no answer yet.
    asked_at: Option<Time>,
}

/// What a driver does about a quiet connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveVerdict {
    /// Nothing.
    Well,
    /// Send a PING, unless one is on its way.
    Ping,
    /// Close it.
    Dead,
}

impl Keepalive {
    /// A fresh connection's. What is not [`permitted`](KeepaliveSettings::permitted) is its caller's affair.
    pub fn new(settings: KeepaliveSettings) -> Self {
        Self { settings, asked_at: None }
    }

    /// What it goes by.
    pub fn settings(&self) -> &KeepaliveSettings {
        &self.settings
    }

    /// Judges the connection: when its last byte came in, and whether a stream is open on it.
    pub fn judge(&mut self, now: Time, received_at: Time, in_use: bool) -> KeepaliveVerdict {
        self.asked_at = self.asked_at.filter(|asked| received_at < *asked);
        if self.next_timeout(received_at, in_use).is_none_or(|at| at > now) {
            return KeepaliveVerdict::Well;
        }
        if self.asked_at.is_some() {
            return KeepaliveVerdict::Dead;
        }
        self.asked_at = Some(now);
        KeepaliveVerdict::Ping
    }

    /// When to judge again if neither a byte comes nor a stream opens until then. To be asked after
    /// [`judge`](Self::judge).
    pub fn next_timeout(&self, received_at: Time, in_use: bool) -> Option<Time> {
        match self.asked_at {
            Some(asked) => Some(asked + self.settings.timeout),
            None if in_use || self.settings.without_calls => Some(received_at + self.settings.time?),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn keepalive(time: u64, timeout: u64, without_calls: bool) -> Keepalive {
        let (time, timeout) = (Some(Duration::from_secs(time)), Duration::from_secs(timeout));
        Keepalive::new(KeepaliveSettings { time, timeout, without_calls })
    }

    #[test]
    fn a_quiet_connection_in_use_is_asked_once_and_dead_without_an_answer() {
        let mut keepalive = keepalive(30, 20, false);
        assert_eq!(keepalive.next_timeout(at(5), true), Some(at(35)));
        assert_eq!(keepalive.judge(at(34), at(5), true), KeepaliveVerdict::Well);
        assert_eq!(keepalive.judge(at(35), at(5), true), KeepaliveVerdict::Ping);
        assert_eq!(keepalive.judge(at(36), at(5), true), KeepaliveVerdict::Well);
        // An answer is owed, whether or not anybody waits for it any more.
        assert_eq!(keepalive.next_timeout(at(5), false), Some(at(55)));
        assert_eq!(keepalive.judge(at(55), at(5), false), KeepaliveVerdict::Dead);
    }

    #[test]
    fn any_byte_answers_and_begins_the_wait_anew() {
        let mut keepalive = keepalive(30, 20, false);
        assert_eq!(keepalive.judge(at(30), at(0), true), KeepaliveVerdict::Ping);
        assert_eq!(keepalive.judge(at(60), at(31), true), KeepaliveVerdict::Well);
        assert_eq!(keepalive.next_timeout(at(31), true), Some(at(61)));
    }

    #[test]
    fn without_calls_it_rests_unless_asked_not_to() {
        assert_eq!(keepalive(30, 20, false).next_timeout(at(0), false), None);
        assert_eq!(keepalive(30, 20, false).judge(at(99), at(0), false), KeepaliveVerdict::Well);
        assert_eq!(keepalive(30, 20, true).judge(at(99), at(0), false), KeepaliveVerdict::Ping);
        let mut off = Keepalive::new(KeepaliveSettings { without_calls: true, ..KeepaliveSettings::default() });
        assert_eq!(off.judge(Time::from_nanos(u64::MAX), at(0), true), KeepaliveVerdict::Well);
    }

    #[test]
    fn a_server_that_finds_pings_too_many_doubles_the_time_once_a_generation() {
        let first = KeepaliveSettings::every(Duration::from_secs(1)).permitted();
        assert_eq!(first.time, Some(Duration::from_secs(10)));
        let second = first.calmed(&first).calmed(&first);
        assert_eq!(second.time, Some(Duration::from_secs(20)));
        assert_eq!(second.calmed(&second).calmed(&first).time, Some(Duration::from_secs(40)));
    }

    /// Counts seconds, and knows nothing of deadlines.
    struct Naive {
        quiet: u64,
        waited: Option<u64>,
    }

    impl Naive {
        fn second(&mut self, settings: &KeepaliveSettings, byte: bool, in_use: bool) -> KeepaliveVerdict {
            let seconds = |duration: Duration| duration.as_secs();
            (self.quiet, self.waited) = if byte { (0, None) } else { (self.quiet + 1, self.waited.map(|s| s + 1)) };
            match self.waited {
                Some(waited) if waited >= seconds(settings.timeout) => KeepaliveVerdict::Dead,
                None if (in_use || settings.without_calls)
                    && settings.time.is_some_and(|time| self.quiet >= seconds(time)) =>
                {
                    self.waited = Some(0);
                    KeepaliveVerdict::Ping
                }
                _ => KeepaliveVerdict::Well,
            }
        }
    }

    proptest! {
        /// Looked at only when a byte comes, a stream opens or ends, or the timer fires, it says the same as a count of
        /// seconds.
        #[test]
        fn agrees_with_a_count_of_seconds(
            seconds in vec((prop::bool::weighted(0.1), prop::bool::weighted(0.9)), 1..200),
            time in 1..12_u64, timeout in 1..12_u64, without_calls: bool,
        ) {
            let mut keepalive = keepalive(time, timeout, without_calls);
            let settings = *keepalive.settings();
            let mut naive = Naive { quiet: 0, waited: None };
            let (mut received_at, mut was_used) = (at(0), false);
            for (now, (byte, in_use)) in (1..).map(at).zip(seconds) {
                let is_due = keepalive.next_timeout(received_at, was_used).is_some_and(|at| at <= now);
                let looks = byte || in_use != was_used || is_due;
                received_at = if byte { now } else { received_at };
                was_used = in_use;
                let expected = naive.second(&settings, byte, in_use);
                let verdict = if looks { keepalive.judge(now, received_at, in_use) } else { KeepaliveVerdict::Well };
                prop_assert_eq!(verdict, expected);
                if verdict == KeepaliveVerdict::Dead {
                    break;
                }
            }
        }
    }
}
