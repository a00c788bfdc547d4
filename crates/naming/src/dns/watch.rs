use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use evenkeel_balance::{Backoff, Entropy};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    Addresses, Known, Report, Share,
    answer::{Answer, Family, Instance},
    config::Config,
    insert,
    lookup::look_up,
};
use crate::{
    ConfigClient, FailureKind, Options, ResolveError,
    target::{Host, HostPort},
};

/// Looks one name up again and again, and reports what changes.
pub(super) struct Watch {
    asked: HostPort,
    options: Options,
    state: State,
    /// Jitters the retries.
    entropy: Entropy,
}

impl Watch {
    pub(super) fn new(asked: HostPort, options: Options) -> Self {
        let client = ConfigClient::of_this_machine(rand::random());
        let state = State::new(&asked, client, &options);
        Self { asked, options, state, entropy: Entropy::new(rand::random()) }
    }

    /// Ends only when nobody reads the reports any more.
    pub(super) async fn run(mut self, index: usize, mut requests: watch::Receiver<()>, reports: mpsc::Sender<Report>) {
        let mut reason = Reason::Start;
        loop {
            let begun = Instant::now();
            let answer = look_up(&self.asked, &self.options).await;
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
    news: Option<Result<Known, ResolveError>>,
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
/// `found` holds the last good list in both. Where one part of an answer fails (a family, or a host of several) and
/// another has addresses, the state is good, with the last addresses of the part that failed, and the next look-up is
/// no later than a retry. The same goes for the service config, which fails by itself.
struct State {
    name: String,
    is_service: bool,
    min_interval: Duration,
    max_interval: Duration,
    backoff: Backoff,
    /// Failed look-ups since the last whole answer.
    failures: u32,
    instances: Vec<Instance>,
    found: BTreeMap<(String, Family), BTreeSet<IpAddr>>,
    error: Option<ResolveError>,
    /// The failure of one part while others answer.
    part_error: Option<ResolveError>,
    config: Config,
}

impl State {
    fn new(asked: &HostPort, client: ConfigClient, options: &Options) -> Self {
        // gRPC's connection backoff, between the bounds of the options.
        let backoff = Backoff::new(options.backoff_initial.min(options.backoff_max), options.backoff_max, 1.6, 0.2);
        Self {
            name: asked.name(),
            is_service: matches!(asked.host, Host::Service(_)),
            min_interval: options.min_interval,
            max_interval: options.max_interval.max(options.min_interval),
            config: Config::new(client, backoff),
            backoff,
            failures: 0,
            instances: Vec::new(),
            found: BTreeMap::new(),
            error: None,
            part_error: None,
        }
    }

    fn handle_answer(&mut self, answer: Result<Answer, ResolveError>, reason: Reason, entropy: &mut Entropy) -> Step {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.fail(error, entropy),
        };
        let failure = answer.hosts.values().find_map(|records| records.as_ref().err()).cloned();
        match (answer.has_addresses(), failure) {
            (true, failure) => {
                let until_retry = self.note_part(failure, entropy);
                self.accept(answer, until_retry, reason, entropy)
            }
            (false, Some(error)) => self.fail(error, entropy),
            (false, None) => {
                let error = self.no_address(&answer);
                self.fail(error, entropy)
            }
        }
    }

    /// Takes the new lists; a part without one keeps its last.
    fn accept(&mut self, answer: Answer, until_retry: Duration, reason: Reason, entropy: &mut Entropy) -> Step {
        let (before, config_before) = (self.addresses(), self.config.known().clone());
        let ttl = smallest_ttl(&answer).min(until_retry);
        let ttl = ttl.min(self.config.handle(&self.name, answer.config, entropy));
        let mut last = std::mem::take(&mut self.found);
        for (part, records) in answer.hosts {
            let kept = last.remove(&part).unwrap_or_default();
            self.found.insert(part, records.map_or(kept, |records| records.addresses));
        }
        self.instances = answer.instances;
        let after = self.addresses();
        let recovered = self.error.take().is_some();
        if after != before {
            self.log_change(&before, &after, reason);
        } else if recovered {
            info!(name = self.name, "name resolves again, to the same endpoints");
        }
        let is_news = after != before || recovered || *self.config.known() != config_before;
        Step {
            news: is_news.then(|| Ok(Known { addresses: after, config: self.config.known().clone() })),
            next: Next::Refresh(ttl.clamp(self.min_interval, self.max_interval)),
        }
    }

    fn fail(&mut self, error: ResolveError, entropy: &mut Entropy) -> Step {
        let delay = self.next_delay(entropy);
        let changed = self.error.as_ref() != Some(&error);
        if changed {
            let kept = self.addresses().len();
            warn!(name = self.name, %error, kept, retry_in = ?delay, "look-up failed; the last endpoints stay in use");
            self.error = Some(error.clone());
        }
        Step { news: changed.then_some(Err(error)), next: Next::Retry(delay) }
    }

    /// Notes whether a part of an answer failed, and gives the time until it is tried again.
    fn note_part(&mut self, failure: Option<ResolveError>, entropy: &mut Entropy) -> Duration {
        let Some(error) = failure else {
            self.failures = 0;
            self.part_error = None;
            return Duration::MAX;
        };
        let delay = self.next_delay(entropy);
        if self.part_error.as_ref() != Some(&error) {
            warn!(name = self.name, %error, retry_in = ?delay, "only a part resolves; the other keeps its last endpoints");
            self.part_error = Some(error);
        }
        delay
    }

    /// How long to wait after one more failure.
    fn next_delay(&mut self, entropy: &mut Entropy) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures, entropy)
    }

    fn no_address(&self, answer: &Answer) -> ResolveError {
        let name = &self.name;
        let missing = match (self.is_service, answer.instances.is_empty()) {
            (false, _) => "has no A or AAAA record",
            (true, true) => "has no SRV record with a target",
            (true, false) => "none of the targets of its SRV records has an A or AAAA record",
        };
        if answer.exists {
            let message = format!("cannot resolve `{name}`: the name exists and {missing}");
            ResolveError::new(FailureKind::NoAddresses, message)
        } else {
            ResolveError::new(FailureKind::NotFound, format!("cannot resolve `{name}`: no such name (NXDOMAIN)"))
        }
    }

    fn addresses(&self) -> Addresses {
        let ranks = self.ranks();
        let mut addresses = Addresses::new();
        for instance in &self.instances {
            let Some(rank) = ranks.iter().position(|priority| *priority == instance.priority) else { continue };
            let priority = u32::try_from(rank).unwrap_or(u32::MAX);
            let share = Share { priority, weight: u32::from(instance.weight).max(1) };
            for ip in self.found_of(instance) {
                insert(&mut addresses, at(*ip, instance), share);
            }
        }
        addresses
    }

    /// The priorities of the instances that have an address, in order.
    fn ranks(&self) -> Vec<u16> {
        let has_address = |instance: &&Instance| self.found_of(instance).next().is_some();
        let priorities: BTreeSet<u16> =
            self.instances.iter().filter(has_address).map(|instance| instance.priority).collect();
        priorities.into_iter().collect()
    }

    fn found_of(&self, instance: &Instance) -> impl Iterator<Item = &IpAddr> {
        let families = [Family::V4, Family::V6].map(|family| self.found.get(&(instance.host.clone(), family)));
        families.into_iter().flatten().flatten()
    }

    fn log_change(&self, before: &Addresses, after: &Addresses, reason: Reason) {
        let missing_in = |there: &Addresses, here: &Addresses| -> Vec<SocketAddr> {
            here.keys().filter(|address| !there.contains_key(address)).copied().collect()
        };
        let (added, removed) = (missing_in(before, after), missing_in(after, before));
        info!(name = self.name, ?added, ?removed, total = after.len(), %reason, "endpoints changed");
    }
}

fn at(ip: IpAddr, instance: &Instance) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, instance.port, 0, instance.scope).into(),
        IpAddr::V4(_) => SocketAddr::new(ip, instance.port),
    }
}

/// The smallest TTL among the parts that have addresses.
fn smallest_ttl(answer: &Answer) -> Duration {
    let found = answer.hosts.values().flatten().filter(|records| !records.addresses.is_empty());
    found.map(|records| records.ttl).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::answer::{Records, Texts},
        *,
    };

    #[allow(clippy::unnecessary_wraps, reason = "one side of a look-up, which may have failed")]
    fn records(addresses: &[&str], ttl: u64) -> Result<Records, ResolveError> {
        let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        Ok(Records { addresses, ttl: Duration::from_secs(ttl), exists: true })
    }

    fn servfail() -> ResolveError {
        ResolveError::new(FailureKind::Server, "SERVFAIL")
    }

    fn known(addresses: &[&str]) -> Known {
        let share = Share { priority: 0, weight: 1 };
        let addresses = addresses.iter().map(|text| (text.parse().unwrap(), share)).collect();
        Known { addresses, config: None }
    }

    fn state_of(asked: &str, options: &Options) -> State {
        let client = ConfigClient { percentile: 0, hostname: "here".to_owned() };
        State::new(&crate::target::host_port(asked).unwrap(), client, options)
    }

    fn state() -> State {
        state_of("web.example:80", &Options::default())
    }

    fn answer(v4: Result<Records, ResolveError>, v6: Result<Records, ResolveError>) -> Answer {
        Answer::of_host(Instance::new("web.example", 80), v4, v6)
    }

    fn handle(state: &mut State, answer: Answer) -> Step {
        state.handle_answer(Ok(answer), Reason::Expired, &mut Entropy::new(1))
    }

    fn after(state: &mut State, v4: Result<Records, ResolveError>, v6: Result<Records, ResolveError>) -> Step {
        handle(state, answer(v4, v6))
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
        assert_eq!(step.news, Some(Ok(known(&["10.0.0.2:80", "[fd00::1]:80"]))));
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
        assert_eq!(recovered.news, Some(Ok(known(&["10.0.0.1:80"]))), "the same list ends the failure");
        let anew = after(&mut state, Err(servfail()), Err(servfail()));
        assert_eq!(anew.next, Next::Retry(first), "a success starts the delays over");
    }

    #[test]
    fn delays_grow_to_the_cap() {
        let options = Options { backoff_max: Duration::from_secs(4), ..Options::default() };
        let mut state = state_of("web.example:80", &options);
        for base in [1.0, 1.6, 2.56, 4.0, 4.0] {
            let step = after(&mut state, Err(servfail()), Err(servfail()));
            let Next::Retry(delay) = step.next else { panic!("a failure is retried") };
            assert!((0.8 * base..=1.2 * base).contains(&delay.as_secs_f64()), "{delay:?} around {base} s");
        }
    }

    fn service(instances: &[(&str, u16, u16)], hosts: &[(&str, Result<Records, ResolveError>)]) -> Answer {
        let instance = |(host, priority, weight): &(&str, u16, u16)| Instance {
            priority: *priority,
            weight: *weight,
            ..Instance::new(*host, 7)
        };
        let hosts = hosts.iter().map(|(host, records)| (((*host).to_owned(), Family::V4), records.clone())).collect();
        Answer { instances: instances.iter().map(instance).collect(), hosts, exists: true, config: None }
    }

    /// Address, rank and weight of everything known.
    fn shares(step: &Step) -> Vec<(String, u32, u32)> {
        let Some(Ok(known)) = &step.news else { panic!("{step:?}") };
        known.addresses.iter().map(|(at, share)| (at.to_string(), share.priority, share.weight)).collect()
    }

    #[test]
    fn priorities_are_ranked_among_instances_with_addresses_and_weight_zero_is_one() {
        let mut state = state_of("_grpc._tcp.web.example", &Options::default());
        let instances = [("a", 10, 5), ("b", 20, 0), ("c", 40, 3), ("a", 30, 9)];
        let hosts = |b| [("a", records(&["10.0.0.1"], 9)), ("b", b), ("c", records(&["10.0.0.3", "10.0.0.4"], 9))];
        let step = handle(&mut state, service(&instances, &hosts(records(&["10.0.0.2"], 9))));
        let expected = [("10.0.0.1:7", 0, 5), ("10.0.0.2:7", 1, 1), ("10.0.0.3:7", 3, 3), ("10.0.0.4:7", 3, 3)];
        assert_eq!(shares(&step), expected.map(|(at, rank, weight)| (at.to_owned(), rank, weight)));
        let step = handle(&mut state, service(&instances, &hosts(records(&[], 0))));
        let expected = [("10.0.0.1:7", 0, 5), ("10.0.0.3:7", 2, 3), ("10.0.0.4:7", 2, 3)];
        assert_eq!(shares(&step), expected.map(|(at, rank, weight)| (at.to_owned(), rank, weight)));
    }

    #[test]
    fn a_target_that_fails_keeps_its_addresses_while_others_change_and_one_that_goes_does_not() {
        let mut state = state_of("_grpc._tcp.web.example", &Options::default());
        let both = [("a", 0, 1), ("b", 0, 1)];
        handle(&mut state, service(&both, &[("a", records(&["10.0.0.1"], 9)), ("b", records(&["10.0.0.2"], 9))]));
        let step = handle(&mut state, service(&both, &[("a", records(&["10.0.0.9"], 9)), ("b", Err(servfail()))]));
        assert_eq!(step.news, Some(Ok(known(&["10.0.0.2:7", "10.0.0.9:7"]))));
        let step = handle(&mut state, service(&both[..1], &[("a", records(&["10.0.0.9"], 9))]));
        assert_eq!(step.news, Some(Ok(known(&["10.0.0.9:7"]))));
        let step = handle(&mut state, service(&both, &[("a", Err(servfail())), ("b", records(&[], 9))]));
        assert_eq!(step.news, Some(Err(servfail())), "nobody knows, so the list stays");
        let step = handle(&mut state, service(&both, &[("a", records(&[], 9)), ("b", records(&[], 9))]));
        let Some(Err(error)) = step.news else { panic!("{step:?}") };
        assert!(error.message.contains("none of the targets of its SRV records"), "{error}");
    }

    #[test]
    fn a_service_config_is_news_and_its_record_expires_too() {
        let mut state = state();
        let texts = |json: &str| Texts {
            name: "_grpc_config.web.example".to_owned(),
            values: vec![format!(r#"grpc_config=[{{"serviceConfig":{json}}}]"#).into()],
            ttl: Some(Duration::from_secs(30)),
        };
        for json in ["{}", r#"{"a":1}"#] {
            let addresses = answer(records(&["10.0.0.1"], 60), records(&[], 60));
            let step = handle(&mut state, Answer { config: Some(Ok(texts(json))), ..addresses });
            let expected = Known { config: Some(Ok(json.to_owned())), ..known(&["10.0.0.1:80"]) };
            assert_eq!(step, Step { news: Some(Ok(expected)), next: Next::Refresh(Duration::from_secs(30)) });
        }
    }
}
