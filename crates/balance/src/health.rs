use std::fmt;

use crate::{Backoff, Entropy, Status, Time, connectivity::Connectivity, status::Code};

/// Whether and how the endpoints of a channel are health-checked (gRFC A17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The service that is asked about; `""` is the whole server.
    pub service: String,
    /// What a server that does not know the service, or has no health service, means.
    pub unknown: UnknownService,
}

/// What to conclude when a server has no answer about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownService {
    /// gRFC A17 to the letter: a server without a health service is healthy, one that does not know the service is
    /// not.
    IsUnhealthy,
    /// Checks count only where the server implements them for this service; otherwise a connection is proof enough.
    IsUnchecked,
}

/// What a health Watch reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    /// The service is SERVING.
    Serving,
    /// The service is known and not SERVING.
    NotServing,
    /// The server does not know the service (`SERVICE_UNKNOWN`).
    ServiceUnknown,
    /// The server implements Check alone, and that gets no answer any more; the text says how it failed.
    Unanswered(String),
    /// The Watch ended, with this status; it never ends well, so OK counts as a failure too.
    Ended(Status),
}

/// The health of one connection as its Watch tells it (gRFC A17).
///
/// ```text
///                  first message: SERVING            any other message
///   UNCHECKED   PENDING ──────────────► SERVING ◄──────────────────► FAILING
///      ▲          │  ▲                     │ Watch ended               │
///      │UNIMPLE-  │  │ backoff is over     ▼                           │
///      └MENTED────┘  └───────────────── RETRYING ◄─────────────────────┘
/// ```
#[derive(Debug)]
pub(crate) struct Health {
    check: Option<HealthCheck>,
    state: State,
    /// Ends of the Watch since its last message.
    failures: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Unchecked,
    Pending,
    Serving,
    Failing(Reason),
    Retrying { at: Time, last: Status },
}

#[derive(Clone, Debug, PartialEq)]
enum Reason {
    NotServing,
    ServiceUnknown,
    Unanswered(String),
    WatchEnded(Status),
}

impl Health {
    /// The health of a fresh connection.
    pub(crate) fn new(check: Option<HealthCheck>) -> Self {
        let state = if check.is_some() { State::Pending } else { State::Unchecked };
        Self { check, state, failures: 0 }
    }

    /// The service to Watch, as long as there is one to Watch.
    pub(crate) fn watched(&self) -> Option<&str> {
        let check = self.check.as_ref()?;
        (self.state != State::Unchecked).then_some(check.service.as_str())
    }

    /// Takes in what the Watch said.
    pub(crate) fn handle(&mut self, now: Time, signal: HealthSignal, backoff: &Backoff, entropy: &mut Entropy) {
        let Some(check) = &self.check else { return };
        let lenient = check.unknown == UnknownService::IsUnchecked;
        if !matches!(signal, HealthSignal::Ended(_)) {
            self.failures = 0;
        }
        self.state = match signal {
            HealthSignal::Serving => State::Serving,
            HealthSignal::NotServing => State::Failing(Reason::NotServing),
            HealthSignal::ServiceUnknown if lenient => State::Unchecked,
            HealthSignal::ServiceUnknown => State::Failing(Reason::ServiceUnknown),
            HealthSignal::Unanswered(why) => State::Failing(Reason::Unanswered(why)),
            HealthSignal::Ended(status) if status.code == Code::Unimplemented => State::Unchecked,
            HealthSignal::Ended(status) if lenient && status.code == Code::NotFound => State::Unchecked,
            HealthSignal::Ended(last) => {
                self.failures = self.failures.saturating_add(1);
                State::Retrying { at: now + backoff.delay(self.failures, entropy), last }
            }
        };
    }

    /// Whether the Watch is to be opened again now; asks once.
    pub(crate) fn retry(&mut self, now: Time) -> bool {
        match &self.state {
            // The endpoint stays out until a message of the new Watch says otherwise.
            State::Retrying { at, last } if *at <= now => {
                self.state = State::Failing(Reason::WatchEnded(last.clone()));
                true
            }
            _ => false,
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        match self.state {
            State::Retrying { at, .. } => Some(at),
            _ => None,
        }
    }

    /// What the health makes of a READY connection.
    pub(crate) fn connectivity(&self) -> Connectivity {
        match self.state {
            State::Unchecked | State::Serving => Connectivity::Ready,
            State::Pending => Connectivity::Connecting,
            State::Failing(_) | State::Retrying { .. } => Connectivity::TransientFailure,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.check.as_ref().map_or("", |check| check.service.as_str());
        match &self.state {
            State::Unchecked => f.write_str("not health-checked"),
            State::Pending => write!(f, "waiting for the first health report of {service:?}"),
            State::Serving => write!(f, "{service:?} is SERVING"),
            State::Failing(Reason::NotServing) => write!(f, "{service:?} is NOT_SERVING"),
            State::Failing(Reason::ServiceUnknown) => write!(f, "the server does not know {service:?}"),
            State::Failing(Reason::Unanswered(why)) => write!(f, "the health checks of {service:?} fail: {why}"),
            State::Failing(Reason::WatchEnded(last)) | State::Retrying { last, .. } => {
                write!(f, "the health Watch of {service:?} ended with {last}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        Connectivity::{Connecting, Ready, TransientFailure},
        *,
    };

    fn strict() -> Health {
        Health::new(Some(HealthCheck { service: "svc".into(), unknown: UnknownService::IsUnhealthy }))
    }

    fn after(mut health: Health, signals: impl IntoIterator<Item = HealthSignal>) -> Health {
        for signal in signals {
            health.handle(Time::ZERO, signal, &Backoff::default(), &mut Entropy::new(1));
        }
        health
    }

    fn ended(code: Code) -> HealthSignal {
        HealthSignal::Ended(Status::new(code, "over"))
    }

    #[test]
    fn a17_off_unless_configured() {
        let health = Health::new(None);
        assert_eq!(health.connectivity(), Ready);
        assert_eq!(health.watched(), None);
    }

    #[test]
    fn a17_connecting_until_the_first_message_then_as_it_says() {
        assert_eq!(strict().connectivity(), Connecting);
        assert_eq!(strict().watched(), Some("svc"));
        assert_eq!(after(strict(), [HealthSignal::Serving]).connectivity(), Ready);
        assert_eq!(after(strict(), [HealthSignal::NotServing]).connectivity(), TransientFailure);
        assert_eq!(after(strict(), [HealthSignal::ServiceUnknown]).connectivity(), TransientFailure);
        assert_eq!(after(strict(), [HealthSignal::NotServing, HealthSignal::Serving]).connectivity(), Ready);
    }

    #[test]
    fn a17_unimplemented_means_healthy_and_is_not_retried() {
        let health = after(strict(), [ended(Code::Unimplemented)]);
        assert_eq!((health.connectivity(), health.next_timeout(), health.watched()), (Ready, None, None));
    }

    #[test]
    fn a17_any_other_end_is_a_failure_with_a_backoff_that_a_message_resets() {
        let mut health = after(strict(), [HealthSignal::Serving, ended(Code::Ok)]);
        assert_eq!(health.connectivity(), TransientFailure);
        let first = health.next_timeout().unwrap();
        assert!(!health.retry(Time::ZERO), "the backoff is not over");
        assert!(health.retry(first) && !health.retry(first), "asks once");
        assert_eq!(health.connectivity(), TransientFailure, "out until a message arrives");

        let twice = after(health, [ended(Code::Unavailable)]);
        assert!(twice.next_timeout().unwrap() > Time::ZERO + Duration::from_millis(1_200), "grew to 1.6 s");
        let reset = after(twice, [HealthSignal::Serving, ended(Code::Unavailable)]);
        assert!(reset.next_timeout().unwrap() <= Time::ZERO + Duration::from_millis(1_200), "back to 1 s");
    }

    #[test]
    fn where_implemented_takes_no_answer_for_no_check() {
        let lenient =
            || Health::new(Some(HealthCheck { service: String::new(), unknown: UnknownService::IsUnchecked }));
        assert_eq!(after(lenient(), [HealthSignal::ServiceUnknown]).connectivity(), Ready);
        assert_eq!(after(lenient(), [ended(Code::NotFound)]).connectivity(), Ready);
        assert_eq!(after(lenient(), [HealthSignal::NotServing]).connectivity(), TransientFailure);
        assert_eq!(after(lenient(), [ended(Code::Unavailable)]).connectivity(), TransientFailure);
    }
}
