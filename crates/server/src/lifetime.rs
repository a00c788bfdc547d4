//! When a connection has to go. Sans-IO: time and facts come in, what is to be done goes out.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::facts::Facts;

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) handshake: Duration,
    pub(crate) idle: Option<Duration>,
    /// With its jitter.
    pub(crate) age: Option<Duration>,
    pub(crate) age_grace: Option<Duration>,
}

/// Why a connection is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The client has not begun to speak HTTP/2 in time.
    Handshake,
    /// No call has run for a while.
    Idle,
    /// It has reached its age.
    Age,
    /// The server shuts down.
    Shutdown,
    TooManyPings,
}

impl Reason {
    /// As it is called in logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Shutdown => "shutdown",
            Self::TooManyPings => "too_many_pings",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Come back then, if not before.
    Wait(Option<Instant>),
    /// Send GOAWAY and let running calls finish.
    Goaway(Reason),
    /// Drop the connection.
    Close(Reason),
}

/// A connection's life.
///
/// ```text
///   Handshake ──► Serving ──► Leaving ──► (closed)
///       └────────────┴─────────────────────▲
/// ```
#[derive(Debug)]
pub(crate) struct Lifetime {
    accepted: Instant,
    times: Times,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Handshake,
    Serving,
    Leaving(Leaving),
}

#[derive(Debug)]
struct Leaving {
    reason: Reason,
    since: Instant,
    /// When it is closed though calls run.
    until: Option<Instant>,
}

/// How long a client without calls may take to close a connection after a GOAWAY, or to reply to the PING that comes with it.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a client has to read a GOAWAY that ends its calls.
const TOO_MANY_PINGS_FAREWELL: Duration = Duration::from_secs(1);

impl Lifetime {
    pub(crate) fn new(accepted: Instant, times: Times) -> Self {
        Self { accepted, times, phase: Phase::Handshake }
    }

    /// What is to be done at `now` when the server shuts down; to be called in place of [`step`](Self::step) from then on.
    pub(crate) fn shutdown(&mut self, now: Instant, facts: &Facts) -> Step {
        match (self.step(now, facts), &self.phase) {
            (Step::Wait(_), Phase::Handshake) => Step::Close(Reason::Shutdown),
            (Step::Wait(_), Phase::Serving) => self.leave(Reason::Shutdown, now),
            (step, _) => step,
        }
    }

    /// What is to be done at `now`.
    pub(crate) fn step(&mut self, now: Instant, facts: &Facts) -> Step {
        if facts.too_many_pings() && !matches!(self.phase, Phase::Leaving(Leaving { reason: Reason::TooManyPings, .. }))
        {
            let until = Some(now + TOO_MANY_PINGS_FAREWELL);
            self.phase = Phase::Leaving(Leaving { reason: Reason::TooManyPings, since: now, until });
        }
        match &self.phase {
            Phase::Handshake if facts.handshaken() => {
                self.phase = Phase::Serving;
                self.serve(now, facts)
            }
            Phase::Handshake => match self.accepted.checked_add(self.times.handshake) {
                Some(until) if until <= now => Step::Close(Reason::Handshake),
                until => Step::Wait(until),
            },
            Phase::Serving => self.serve(now, facts),
            Phase::Leaving(leaving) => leaving.step(now, facts),
        }
    }

    fn serve(&mut self, now: Instant, facts: &Facts) -> Step {
        let aged = self.times.age.and_then(|age| self.accepted.checked_add(age));
        // A connection with calls is not idle before they have ended, and then for the whole time.
        let idle = self.times.idle.and_then(|idle| facts.idle_since().unwrap_or(now).checked_add(idle));
        match (aged, idle) {
            (Some(aged), _) if aged <= now => self.leave(Reason::Age, now),
            (_, Some(idle)) if idle <= now => self.leave(Reason::Idle, now),
            (aged, idle) => Step::Wait(aged.into_iter().chain(idle).min()),
        }
    }

    fn leave(&mut self, reason: Reason, now: Instant) -> Step {
        let grace = self.times.age_grace.filter(|_| reason == Reason::Age);
        let until = grace.and_then(|grace| now.checked_add(grace));
        self.phase = Phase::Leaving(Leaving { reason, since: now, until });
        Step::Goaway(reason)
    }
}

impl Leaving {
    fn step(&self, now: Instant, facts: &Facts) -> Step {
        let farewell = facts.idle_since().map_or(now, |idle| idle.max(self.since)) + FAREWELL;
        let at = self.until.map_or(farewell, |until| until.min(farewell));
        if at <= now { Step::Close(self.reason) } else { Step::Wait(Some(at)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TIMES: Times = Times { handshake: Duration::from_secs(10), idle: None, age: None, age_grace: None };

    fn serving(times: Times) -> (Lifetime, Facts, Instant) {
        let start = Instant::now();
        let facts = Facts::new(start);
        facts.set_handshaken();
        (Lifetime::new(start, times), facts, start)
    }

    #[test]
    fn a_client_that_never_speaks_is_closed() {
        let start = Instant::now();
        let (mut life, facts) = (Lifetime::new(start, TIMES), Facts::new(start));
        assert_eq!(life.step(start, &facts), Step::Wait(Some(start + 10 * SECOND)));
        assert_eq!(life.step(start + 10 * SECOND, &facts), Step::Close(Reason::Handshake));
        facts.set_handshaken();
        assert_eq!(life.step(start + 10 * SECOND, &facts), Step::Wait(None), "nothing else is due by default");
        let endless = Times { handshake: Duration::MAX, ..TIMES };
        assert_eq!(Lifetime::new(start, endless).step(start, &Facts::new(start)), Step::Wait(None));
        let silent = Facts::new(start);
        assert_eq!(Lifetime::new(start, TIMES).shutdown(start, &silent), Step::Close(Reason::Shutdown));
    }

    #[test]
    fn a_connection_of_age_has_its_grace() {
        let (mut life, facts, start) =
            serving(Times { age: Some(60 * SECOND), age_grace: Some(3 * SECOND), idle: Some(90 * SECOND), ..TIMES });
        assert_eq!(life.step(start, &facts), Step::Wait(Some(start + 60 * SECOND)));
        assert_eq!(life.step(start + 60 * SECOND, &facts), Step::Goaway(Reason::Age));
        assert_eq!(life.step(start + 61 * SECOND, &facts), Step::Wait(Some(start + 63 * SECOND)));
        assert_eq!(
            life.shutdown(start + 62 * SECOND, &facts),
            Step::Wait(Some(start + 63 * SECOND)),
            "the client knows"
        );
        assert_eq!(life.step(start + 63 * SECOND, &facts), Step::Close(Reason::Age));
    }

    #[test]
    fn idleness_counts_from_the_last_call() {
        let (mut life, facts, start) = serving(Times { idle: Some(60 * SECOND), ..TIMES });
        facts.running.store(1, Ordering::Relaxed);
        assert_eq!(life.step(start + 90 * SECOND, &facts), Step::Wait(Some(start + 150 * SECOND)), "a call runs");
        facts.running.store(0, Ordering::Relaxed);
        *facts.idle_since.lock().unwrap() = start + 100 * SECOND;
        assert_eq!(life.step(start + 150 * SECOND, &facts), Step::Wait(Some(start + 160 * SECOND)));
        assert_eq!(life.step(start + 160 * SECOND, &facts), Step::Goaway(Reason::Idle));
    }

    #[test]
    fn calls_may_finish_after_a_goaway_but_a_client_without_any_has_to_go() {
        let (mut life, facts, start) = serving(TIMES);
        facts.running.store(1, Ordering::Relaxed);
        assert_eq!(life.step(start, &facts), Step::Wait(None));
        assert_eq!(life.shutdown(start, &facts), Step::Goaway(Reason::Shutdown));
        assert_eq!(life.step(start + 600 * SECOND, &facts), Step::Wait(Some(start + 605 * SECOND)));
        facts.running.store(0, Ordering::Relaxed);
        *facts.idle_since.lock().unwrap() = start + 601 * SECOND;
        assert_eq!(life.step(start + 605 * SECOND, &facts), Step::Wait(Some(start + 606 * SECOND)));
        assert_eq!(life.step(start + 606 * SECOND, &facts), Step::Close(Reason::Shutdown));
    }

    #[test]
    fn too_many_pings_end_it_soon_even_with_calls() {
        let (mut life, facts, start) = serving(TIMES);
        facts.running.store(1, Ordering::Relaxed);
        facts.set_too_many_pings();
        assert_eq!(life.step(start, &facts), Step::Wait(Some(start + SECOND)));
        assert_eq!(life.step(start + SECOND, &facts), Step::Close(Reason::TooManyPings));
    }
}
