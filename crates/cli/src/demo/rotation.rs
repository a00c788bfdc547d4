//! Which backends a channel sends calls to, as its reports tell it.

use std::{sync::Arc, time::Duration};

use evenkeel_balance::{Connectivity, Load, Time};

use super::script::BACKENDS;

/// What a channel last said of an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) state: Connectivity,
    /// Since when it is READY, or is not, on the channel's clock.
    pub(super) since: Time,
    pub(super) reason: String,
    pub(super) load: Arc<Load>,
}

/// A backend went out of rotation, or came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) at: Duration,
    pub(super) backend: usize,
    pub(super) ready: bool,
    pub(super) reason: String,
}

/// Which backends one channel sends calls to, now and in the past: those that are READY.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    endpoints: [Option<Sight>; BACKENDS.len()],
    transitions: Vec<Transition>,
}

impl Rotation {
    /// Takes in what the channel says of a backend, and returns what that changes.
    pub(super) fn see(&mut self, at: Duration, backend: usize, sight: Sight) -> Vec<Transition> {
        let is_ready = sight.state == Connectivity::Ready;
        let was = self.endpoints[backend].as_ref().map(|was| (was.state == Connectivity::Ready, was.since));
        let turns: &[bool] = match was {
            // Reports are the latest state, not a queue: a short outage shows in `since` alone.
            Some((true, since)) if is_ready && since != sight.since => &[false, true],
            Some((was_ready, _)) if was_ready != is_ready => &[is_ready],
            None if is_ready => &[true],
            _ => &[],
        };
        let reason = &sight.reason;
        let news: Vec<_> =
            turns.iter().map(|&ready| Transition { at, backend, ready, reason: reason.clone() }).collect();
        self.transitions.extend(news.iter().cloned());
        self.endpoints[backend] = Some(sight);
        news
    }

    /// What the channel last said of a backend; `None` if it has not been heard of.
    pub(super) fn sight(&self, backend: usize) -> Option<&Sight> {
        self.endpoints[backend].as_ref()
    }

    /// How many times a backend has left the rotation.
    pub(super) fn outages(&self, backend: usize) -> usize {
        self.of(backend).filter(|transition| !transition.ready).count()
    }

    /// When a backend first left the rotation at `since` or later.
    pub(super) fn out_at(&self, backend: usize, since: Duration) -> Option<Duration> {
        self.of(backend).find(|transition| !transition.ready && transition.at >= since).map(|out| out.at)
    }

    /// When a backend first was back in the rotation at `since` or later.
    pub(super) fn ready_at(&self, backend: usize, since: Duration) -> Option<Duration> {
        self.of(backend).find(|transition| transition.ready && transition.at >= since).map(|back| back.at)
    }

    fn of(&self, backend: usize) -> impl Iterator<Item = &Transition> {
        self.transitions.iter().filter(move |transition| transition.backend == backend)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Connectivity::{Connecting, Idle, Ready, TransientFailure},
        *,
    };

    fn sight(state: Connectivity, since: u64) -> Sight {
        Sight { state, since: Time::from_nanos(since), reason: state.to_string(), load: Arc::default() }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ready_at_zero() -> Rotation {
        let mut rotation = Rotation::default();
        rotation.see(at(0), 0, sight(Ready, 1));
        rotation
    }

    #[test]
    fn the_first_connect_is_no_outage() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.see(at(0), 0, sight(Connecting, 0)), []);
        let news = rotation.see(at(5), 0, sight(Ready, 5));
        assert_eq!(news, [Transition { at: at(5), backend: 0, ready: true, reason: "READY".into() }]);
        assert_eq!(rotation.outages(0), 0);
    }

    #[test]
    fn leaving_ready_is_the_outage_and_the_steps_of_a_reconnect_are_not() {
        let mut rotation = ready_at_zero();
        assert_eq!(rotation.see(at(10), 0, sight(Idle, 10)).len(), 1);
        for state in [Connecting, TransientFailure, Idle, Connecting] {
            assert_eq!(rotation.see(at(20), 0, sight(state, 10)), []);
        }
        rotation.see(at(30), 0, sight(Ready, 30));
        assert_eq!((rotation.outages(0), rotation.outages(1)), (1, 0));
        assert_eq!(rotation.out_at(0, at(9)), Some(at(10)));
        assert_eq!(rotation.ready_at(0, at(9)), Some(at(30)));
    }

    #[test]
    fn an_outage_shorter_than_a_look_still_counts() {
        let mut rotation = ready_at_zero();
        assert_eq!(rotation.see(at(7), 0, sight(Ready, 6)).len(), 2);
        assert_eq!((rotation.outages(0), rotation.out_at(0, at(1))), (1, Some(at(7))));
    }

    #[test]
    fn what_was_before_a_fault_is_not_its_detection() {
        let mut rotation = ready_at_zero();
        rotation.see(at(10), 0, sight(Idle, 10));
        rotation.see(at(20), 0, sight(Ready, 20));
        assert_eq!(rotation.out_at(0, at(11)), None);
        assert_eq!(rotation.ready_at(0, at(21)), None);
    }
}
