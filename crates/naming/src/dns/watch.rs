use std::{collections::BTreeSet, fmt, net::SocketAddr, time::Duration};

use evenkeel_balance::{Backoff, Entropy};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    Report,
    lookup::{Answer, Records, look_up},
};
use crate::{FailureKind, Options, ResolveError};

/// Sorted and without duplicates.
pub(super) type Addresses = BTreeSet<SocketAddr>;

/// Looks one name up again and again, and reports what changes.
pub(super) struct Watch {
    name: String,
    options: Options,
    state: State,
    /// Jitters the retries.
    entropy: Entropy,
}

impl Watch {
    pub(super) fn new(name: String, port: u16, options: Options) -> Self {
        let state = State::new(&name, port, &options);
        Self { name, options, state, entropy: Entropy::new(rand::random()) }
    }

    /// Ends only when nobody reads the reports any more.
    pub(super) async fn run(mut self, index: usize, mut requests: watch::Receiver<()>, reports: mpsc::Sender<Report>) {
        let mut reason = Reason::Start;
        loop {
            let begun = Instant::now();
            let answer = look_up(&self.name, &self.options).await;
            let step = self.state.handle_answer(answer, reason, &mut self.entropy);
            if let Some(outcome) = step.news
                && reports.send(Report { index, outcome }).await.is_err()
            {
                return;
            }
            reason = self.wait(&step.next, begun, &mut requests).await;
        }
    }

    async fn wait(&self, next: &Next, begun: Instant, requests: &mut watch::Receiver<()>) -> Reason {
        match next {
            // Requests cannot hurry a server that fails: it is being asked already.
            Next::Retry(delay) => {
                tokio::time::sleep(*delay).await;
                Reason::Retry
            }
            Next::Refresh(delay) => tokio::select! {
                () = tokio::time::sleep(*delay) => Reason::Expired,
                Ok(()) = requests.changed() => {
                    sleep_until(begun + self.options.min_interval).await;
                    Reason::Requested
                }
            },
        }
    }
}

/// Why a name was looked up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    Start,
    Expired,
    Requested,
    Retry,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "first look-up",
            Self::Expired => "TTL expired",
            Self::Requested => "the channel asked",
            Self::Retry => "retry after a failure",
        })
    }
}

/// When to look up next.
#[derive(Debug, PartialEq)]
enum Next {
    /// After a good answer; a request comes sooner.
    Refresh(Duration),
    /// After a failure.
    Retry(Duration),
}

/// What an answer leads to.
#[derive(Debug, PartialEq)]
struct Step {
    news: Option<Result<Addresses, ResolveError>>,
    next: Next,
}

/// What is known about a name. Two states, told apart by `error`; each answer leads to either:
///
/// ```text
///            addresses ┌────────┐  failure, or no address  ┌─────────┐ again
/// report the list if ┌►│  good  ├─────────────────────────►│ failing ├─┐ report if the
/// it changed         └─┤        │◄─────────────────────────┤         │◄┘ error changed
///                      └────────┘  addresses: report them  └─────────┘
/// ```
///
/// `v4` and `v6` hold the last good list in both. Where one family answers and the other fails, the state is good, with
/// the last list of the family that failed, and the next look-up is no later than a retry.
struct State {
    name: String,
    port: u16,
    min_interval: Duration,
    max_interval: Duration,
    backoff: Backoff,
    /// Failed look-ups since the last whole answer.
    failures: u32,
    v4: Addresses,
    v6: Addresses,
    error: Option<ResolveError>,
    /// The failure of one family while the other answers.
    half_error: Option<ResolveError>,
}

impl State {
    fn new(name: &str, port: u16, options: &Options) -> Self {
        Self {
            name: name.to_owned(),
            port,
            min_interval: options.min_interval,
            max_interval: options.max_interval.max(options.min_interval),
            // gRPC's connection backoff, between the bounds of the options.
            backoff: Backoff::new(options.backoff_initial.min(options.backoff_max), options.backoff_max, 1.6, 0.2),
            failures: 0,
            v4: BTreeSet::new(),
            v6: BTreeSet::new(),
            error: None,
            half_error: None,
        }
    }

    fn handle_answer(&mut self, answer: Answer, reason: Reason, entropy: &mut Entropy) -> Step {
        match (answer.v4, answer.v6) {
            (Ok(v4), Ok(v6)) if v4.addresses.is_empty() && v6.addresses.is_empty() => {
                let error = self.no_address(v4.exists || v6.exists);
                self.fail(error, entropy)
            }
            (Ok(v4), Ok(v6)) => {
                self.failures = 0;
                self.half_error = None;
                let ttl = smallest_ttl([&v4, &v6]);
                self.accept(Some(v4), Some(v6), ttl, reason)
            }
            (Ok(v4), Err(error)) if !v4.addresses.is_empty() => {
                let ttl = v4.ttl.min(self.note_half(error, entropy));
                self.accept(Some(v4), None, ttl, reason)
            }
            (Err(error), Ok(v6)) if !v6.addresses.is_empty() => {
                let ttl = v6.ttl.min(self.note_half(error, entropy));
                self.accept(None, Some(v6), ttl, reason)
            }
            (Err(error), _) | (_, Err(error)) => self.fail(error, entropy),
        }
    }

    /// Takes the new lists; a family without one keeps its last.
    fn accept(&mut self, v4: Option<Records>, v6: Option<Records>, ttl: Duration, reason: Reason) -> Step {
        let before: Addresses = self.addresses();
        let port = self.port;
        let with_port =
            |records: Records| records.addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect::<Addresses>();
        self.v4 = v4.map_or_else(|| std::mem::take(&mut self.v4), with_port);
        self.v6 = v6.map_or_else(|| std::mem::take(&mut self.v6), with_port);
        let after = self.addresses();
        let recovered = self.error.take().is_some();
        if after != before {
            self.log_change(&before, &after, reason);
        } else if recovered {
            info!(name = self.name, "name resolves again, to the same endpoints");
        }
        Step {
            news: (after != before || recovered).then_some(Ok(after)),
            next: Next::Refresh(ttl.clamp(self.min_interval, self.max_interval)),
        }
    }

    fn fail(&mut self, error: ResolveError, entropy: &mut Entropy) -> Step {
        let delay = self.next_delay(entropy);
        let changed = self.error.as_ref() != Some(&error);
        if changed {
            let kept = self.v4.len() + self.v6.len();
            warn!(name = self.name, %error, kept, retry_in = ?delay, "look-up failed; the last endpoints stay in use");
            self.error = Some(error.clone());
        }
        Step { news: changed.then_some(Err(error)), next: Next::Retry(delay) }
    }

    /// Notes the failure of one family, and gives the time until it is tried again.
    fn note_half(&mut self, error: ResolveError, entropy: &mut Entropy) -> Duration {
        let delay = self.next_delay(entropy);
        if self.half_error.as_ref() != Some(&error) {
            warn!(name = self.name, %error, retry_in = ?delay, "only one address family resolves; the other keeps its last endpoints");
            self.half_error = Some(error);
        }
        delay
    }

    /// How long to wait after one more failure.
    fn next_delay(&mut self, entropy: &mut Entropy) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures, entropy)
    }

    fn no_address(&self, exists: bool) -> ResolveError {
        let name = &self.name;
        if exists {
            let message = format!("cannot resolve `{name}`: the name exists and has no A or AAAA record");
            ResolveError::new(FailureKind::NoAddresses, message)
        } else {
            ResolveError::new(FailureKind::NotFound, format!("cannot resolve `{name}`: no such name (NXDOMAIN)"))
        }
    }

    fn addresses(&self) -> Addresses {
        self.v4.union(&self.v6).copied().collect()
    }

    fn log_change(&self, before: &Addresses, after: &Addresses, reason: Reason) {
        let added: Vec<_> = after.difference(before).collect();
        let removed: Vec<_> = before.difference(after).collect();
        info!(name = self.name, ?added, ?removed, total = after.len(), %reason, "endpoints changed");
    }
}

/// The smallest TTL among the families that have addresses.
fn smallest_ttl(families: [&Records; 2]) -> Duration {
    let found = families.into_iter().filter(|records| !records.addresses.is_empty());
    found.map(|records| records.ttl).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "one side of a look-up, which may have failed")]
    fn records(addresses: &[&str], ttl: u64) -> Result<Records, ResolveError> {
        let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        Ok(Records { addresses, ttl: Duration::from_secs(ttl), exists: true })
    }

    fn servfail() -> ResolveError {
        ResolveError::new(FailureKind::Server, "SERVFAIL")
    }

    fn state() -> State {
        State::new("web.example", 80, &Options::default())
    }

    fn after(state: &mut State, v4: Result<Records, ResolveError>, v6: Result<Records, ResolveError>) -> Step {
        state.handle_answer(Answer { v4, v6 }, Reason::Expired, &mut Entropy::new(1))
    }

    #[test]
    fn the_smallest_ttl_of_a_family_with_addresses_is_the_time_to_the_next_look_up_within_bounds() {
        let mut state = state();
        let mut next = |v4, v6| after(&mut state, v4, v6).next;
        assert_eq!(next(records(&["10.0.0.1"], 30), records(&["fd00::1"], 20)), Next::Refresh(Duration::from_secs(20)));
        assert_eq!(next(records(&["10.0.0.1"], 30), records(&[], 0)), Next::Refresh(Duration::from_secs(30)));
        assert_eq!(
            next(records(&["10.0.0.1"], 0), records(&[], 9)),
            Next::Refresh(Duration::from_secs(1)),
            "the floor"
        );
        let most = Options::default().max_interval;
        assert_eq!(next(records(&["10.0.0.1"], 1 << 31), records(&[], 9)), Next::Refresh(most), "the ceiling");
    }

    #[test]
    fn a_family_that_fails_keeps_its_last_addresses_and_is_retried() {
        let mut state = state();
        after(&mut state, records(&["10.0.0.1"], 60), records(&["fd00::1"], 60));
        let step = after(&mut state, records(&["10.0.0.2"], 60), Err(servfail()));
        let expected = ["10.0.0.2:80", "[fd00::1]:80"].map(|text| text.parse().unwrap()).into_iter().collect();
        assert_eq!(step.news, Some(Ok(expected)));
        let Next::Refresh(delay) = step.next else { panic!("{step:?}") };
        assert!(delay < Duration::from_secs(2), "no later than a retry: {delay:?}");
    }

    #[test]
    fn failures_are_told_once_retried_later_and_later_and_their_end_is_told() {
        let mut state = state();
        after(&mut state, records(&["10.0.0.1"], 60), records(&[], 60));
        let first = after(&mut state, Err(servfail()), Err(servfail()));
        assert_eq!(first.news, Some(Err(servfail())));
        let second = after(&mut state, Err(servfail()), Err(servfail()));
        assert_eq!(second.news, None);
        let (Next::Retry(first), Next::Retry(second)) = (first.next, second.next) else {
            panic!("a failure is retried")
        };
        assert!(second > first, "{first:?}, then {second:?}");
        let recovered = after(&mut state, records(&["10.0.0.1"], 60), records(&[], 60));
        assert!(matches!(recovered.news, Some(Ok(list)) if list.len() == 1), "the same list ends the failure");
        let anew = after(&mut state, Err(servfail()), Err(servfail()));
        assert_eq!(anew.next, Next::Retry(first), "a success starts the delays over");
    }

    #[test]
    fn delays_grow_to_the_cap() {
        let options = Options { backoff_max: Duration::from_secs(4), ..Options::default() };
        let mut state = State::new("web.example", 80, &options);
        for base in [1.0, 1.6, 2.56, 4.0, 4.0] {
            let step = after(&mut state, Err(servfail()), Err(servfail()));
            let Next::Retry(delay) = step.next else { panic!("a failure is retried") };
            assert!((0.8 * base..=1.2 * base).contains(&delay.as_secs_f64()), "{delay:?} around {base} s");
        }
    }
}
