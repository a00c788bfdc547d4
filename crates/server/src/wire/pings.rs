//! Which PINGs a client may send (gRFC A8). Sans-IO.

use std::time::Duration;

use tokio::time::Instant;

/// What a client's PINGs are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermittedPings {
    /// The least time between two PINGs of a client while it has calls. Default 5 minutes, as gRPC has it.
    pub interval: Duration,
    /// Whether it may send PINGs at that interval without a call, too. Default no: then one in two hours is taken.
    pub without_calls: bool,
}

impl Default for PermittedPings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5 * 60), without_calls: false }
    }
}

/// The interval of those that may send none: the time after which TCP's own keepalive looks for a peer.
const WITHOUT_CALLS: Duration = Duration::from_secs(2 * 60 * 60);

/// A client that sends one more PING too early than this is sent away.
const MAX_STRIKES: u32 = 2;

/// How a client has kept to what is permitted.
#[derive(Debug)]
pub(super) struct PingStrikes {
    permitted: PermittedPings,
    last: Option<Instant>,
    strikes: u32,
    /// Whether the server has sent headers or data since the last PING: a client may PING in reply, to measure the path.
    pardoned: bool,
}

impl PingStrikes {
    pub(super) fn new(permitted: PermittedPings) -> Self {
        Self { permitted, last: None, strikes: 0, pardoned: false }
    }

    /// The server has sent headers or data.
    pub(super) fn pardon(&mut self) {
        self.pardoned = true;
    }

    /// Whether the client has sent too many PINGs with this one.
    pub(super) fn ping(&mut self, now: Instant, has_calls: bool) -> bool {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.pardoned) {
            self.strikes = 0;
            return false;
        }
        let permitted = has_calls || self.permitted.without_calls;
        let interval = if permitted { self.permitted.interval } else { WITHOUT_CALLS };
        if last.is_some_and(|last| now.duration_since(last) < interval) {
            self.strikes += 1;
        }
        self.strikes > MAX_STRIKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each PING, so many seconds after the first, was one too many.
    fn pings(strikes: &mut PingStrikes, start: Instant, seconds: &[u64], has_calls: bool) -> Vec<bool> {
        seconds.iter().map(|second| strikes.ping(start + Duration::from_secs(*second), has_calls)).collect()
    }

    #[test]
    fn the_third_early_ping_is_one_too_many() {
        let mut strikes = PingStrikes::new(PermittedPings::default());
        assert_eq!(pings(&mut strikes, Instant::now(), &[0, 1, 2, 3], true), [false, false, false, true]);
    }

    #[test]
    fn pings_at_the_interval_are_taken_with_calls_and_without_only_where_permitted() {
        let times = [0, 300, 600, 900, 1200];
        let permitted = PermittedPings::default();
        for (without_calls, has_calls, refused) in [(false, true, false), (true, false, false), (false, false, true)] {
            let mut strikes = PingStrikes::new(PermittedPings { without_calls, ..permitted });
            let taken = pings(&mut strikes, Instant::now(), &times, has_calls);
            assert_eq!(taken.contains(&true), refused, "{without_calls} {has_calls}");
        }
        let mut strikes = PingStrikes::new(permitted);
        let hours = [0, 7200, 14_400, 21_600, 28_800];
        assert_eq!(pings(&mut strikes, Instant::now(), &hours, false), [false; 5]);
    }

    #[test]
    fn the_longest_interval_there_is_forbids_all_but_the_first() {
        let mut strikes = PingStrikes::new(PermittedPings { interval: Duration::MAX, without_calls: true });
        assert_eq!(
            pings(&mut strikes, Instant::now(), &[0, 9_999, 99_999, 999_999], true),
            [false, false, false, true]
        );
    }

    #[test]
    fn what_the_server_sends_wipes_strikes_out() {
        let mut strikes = PingStrikes::new(PermittedPings::default());
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(pings(&mut strikes, start, &[0, 0], true), [false; 2]);
            strikes.pardon();
        }
        assert_eq!(pings(&mut strikes, start, &[0, 0, 0, 0], true), [false, false, false, true]);
    }
}
