use std::{collections::BTreeSet, fmt, pin::Pin, sync::Arc, time::Duration};

use evenkeel_balance::{Address, Endpoint};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tracing::warn;

use crate::{FailureKind, Outcome, Resolution, ResolveError, Resolver, Resolving, Updates, start};

/// How long the first list waits for those of better rank, so that calls do not begin on a standby.
const FIRST_ANSWERS: Duration = Duration::from_millis(500);

/// Joins several resolvers into groups of endpoints: those of the first have [`Endpoint::priority`] 0, those of the second
/// 1, and so on. The policies `failover` and `priority` go by it.
///
/// Each resolver works by itself: while one fails, its last endpoints and those of the others stay. The first list is
/// sent when each has answered, or 500 ms after the first that has found endpoints. Failures are told beside the list;
/// while there is none, when all have failed.
///
/// - Whatever priorities a resolver gives its endpoints itself (as SRV records do), here they are one group; a warning in
///   the log says so.
/// - An endpoint that several have found belongs to the first of them.
/// - The service config is that of the first resolver.
///
/// ```
/// use evenkeel_naming::{Options, Ranked, Target, start};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = Options::default();
/// let (primary, standby): (Target, Target) = ("10.0.0.1:50051".parse()?, "10.1.0.1:50051".parse()?);
/// let ranked = Ranked::new([primary.resolver(&options), standby.resolver(&options)]);
/// let resolution = start(Box::new(ranked)).next().await.expect("lists of addresses resolve at once")?;
/// let priorities: Vec<_> = resolution.endpoints.iter().map(|endpoint| endpoint.priority).collect();
/// assert_eq!(priorities, [0, 1]);
/// # Ok(())
/// # }
/// ```
pub struct Ranked {
    resolvers: Vec<Box<dyn Resolver>>,
}

impl Ranked {
    /// Resolvers by rank, the best first.
    pub fn new(resolvers: impl IntoIterator<Item = Box<dyn Resolver>>) -> Self {
        Self { resolvers: resolvers.into_iter().collect() }
    }
}

impl Resolver for Ranked {
    fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { Joining::new(self.resolvers).run(&updates).await })
    }
}

impl fmt::Debug for Ranked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranked").field("resolvers", &self.resolvers.len()).finish_non_exhaustive()
    }
}

/// Resolvers that run, and what each has said.
struct Joining {
    resolving: Vec<Arc<Resolving>>,
    outcomes: mpsc::UnboundedReceiver<(usize, Option<Outcome>)>,
    /// Pass the outcomes on; they end with this.
    _forwarding: JoinSet<()>,
    groups: Vec<Group>,
    /// When the first list goes out though some have not answered.
    due_at: Option<Instant>,
    has_sent: bool,
}

/// What one resolver has said.
#[derive(Default)]
struct Group {
    last: Option<Resolution>,
    /// Until it succeeds again.
    error: Option<ResolveError>,
    warned: bool,
}

impl Joining {
    fn new(resolvers: Vec<Box<dyn Resolver>>) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let mut forwarding = JoinSet::new();
        let groups = resolvers.iter().map(|_| Group::default()).collect();
        let resolving: Vec<_> = resolvers.into_iter().map(|resolver| Arc::new(start(resolver))).collect();
        for (rank, resolving) in resolving.iter().enumerate() {
            forwarding.spawn(forward(rank, Arc::clone(resolving), sender.clone()));
        }
        Self { resolving, outcomes, _forwarding: forwarding, groups, due_at: None, has_sent: false }
    }

    /// Until all resolvers have ended.
    async fn run(mut self, updates: &Updates) {
        loop {
            let due_at = self.due_at;
            tokio::select! {
                outcome = self.outcomes.recv() => match outcome {
                    Some((rank, outcome)) => self.take(rank, outcome, updates),
                    None => return,
                },
                () = updates.requested() => self.resolve_now(),
                () = until(due_at) => self.send(updates),
            }
        }
    }

    fn resolve_now(&self) {
        for resolving in &self.resolving {
            resolving.resolve_now();
        }
    }

    fn take(&mut self, rank: usize, outcome: Option<Outcome>, updates: &Updates) {
        let group = &mut self.groups[rank];
        let has_list = match outcome {
            Some(Ok(resolution)) => {
                group.warn(rank, &resolution);
                (group.last, group.error) = (Some(resolution), None);
                true
            }
            Some(Err(error)) => {
                group.error = Some(error);
                false
            }
            // A list that cannot change.
            None if group.last.is_some() => return,
            None => {
                let message = format!("the resolver of the target of rank {rank} has ended without an answer");
                group.error.get_or_insert(ResolveError::new(FailureKind::Unreachable, message));
                false
            }
        };
        if has_list && !self.has_sent {
            self.due_at.get_or_insert(Instant::now() + FIRST_ANSWERS);
        }
        let all_answered = self.groups.iter().all(|group| group.last.is_some() || group.error.is_some());
        match (self.has_sent, has_list) {
            (true, false) => self.send_errors(updates),
            (true, true) => self.send(updates),
            (false, _) if all_answered => self.send(updates),
            (false, _) => {}
        }
    }

    /// The joined list, and what is wrong beside.
    fn send(&mut self, updates: &Updates) {
        self.due_at = None;
        if self.groups.iter().any(|group| group.last.is_some()) {
            self.has_sent = true;
            updates.send(Ok(self.joined()));
        }
        self.send_errors(updates);
    }

    fn send_errors(&self, updates: &Updates) {
        let mut errors = self.groups.iter().filter_map(|group| group.error.as_ref());
        let Some(first) = errors.next() else { return };
        let message = errors.fold(first.message.clone(), |told, error| format!("{told}; {}", error.message));
        updates.send(Err(ResolveError::new(first.kind, message)));
    }

    fn joined(&self) -> Resolution {
        let mut seen: BTreeSet<BTreeSet<&Address>> = BTreeSet::new();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (rank, group) in (0..).zip(&self.groups) {
            let found = group.last.iter().flat_map(|resolution| &resolution.endpoints);
            // One list may name an endpoint twice, if it means to.
            let new: Vec<_> = found.filter(|endpoint| !seen.contains(&identity(endpoint))).collect();
            seen.extend(new.iter().map(|endpoint| identity(endpoint)));
            endpoints.extend(new.into_iter().map(|endpoint| endpoint.clone().with_priority(rank)));
        }
        let service_config = self.groups.first().and_then(|group| group.last.as_ref()?.service_config.clone());
        Resolution { endpoints, service_config }
    }
}

impl Group {
    /// Says once that the resolver's own ranks do not count.
    fn warn(&mut self, rank: usize, resolution: &Resolution) {
        if !self.warned && resolution.endpoints.iter().any(|endpoint| endpoint.priority != 0) {
            self.warned = true;
            warn!(rank, "a target with standby targets ranks its endpoints itself; they are one group all the same");
        }
    }
}

fn identity(endpoint: &Endpoint) -> BTreeSet<&Address> {
    endpoint.addresses.iter().collect()
}

async fn forward(rank: usize, resolving: Arc<Resolving>, sender: mpsc::UnboundedSender<(usize, Option<Outcome>)>) {
    loop {
        let outcome = resolving.outcome().await;
        let ends = outcome.is_none();
        if sender.send((rank, outcome)).is_err() || ends {
            return;
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what its test tells it to.
    struct Told(mpsc::UnboundedReceiver<Outcome>);

    impl Resolver for Told {
        fn run(mut self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move {
                while let Some(outcome) = self.0.recv().await {
                    updates.send(outcome);
                }
            })
        }
    }

    fn two() -> ([mpsc::UnboundedSender<Outcome>; 2], Resolving) {
        let (first, told_first) = mpsc::unbounded_channel();
        let (second, told_second) = mpsc::unbounded_channel();
        let resolvers: [Box<dyn Resolver>; 2] = [Box::new(Told(told_first)), Box::new(Told(told_second))];
        ([first, second], start(Box::new(Ranked::new(resolvers))))
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn list(ports: &[u16]) -> Resolution {
        Resolution::new(ports.iter().copied().map(endpoint).collect())
    }

    fn error(message: &str) -> ResolveError {
        ResolveError::new(FailureKind::TimedOut, message)
    }

    /// Ports and priorities.
    async fn next(resolving: &mut Resolving) -> Result<Vec<(u16, u32)>, ResolveError> {
        let resolution = resolving.next().await.expect("it has not ended")?;
        let port = |endpoint: &Endpoint| match endpoint.addresses[0] {
            Address::Tcp(address) => address.port(),
            ref other => panic!("{other} is no TCP address"),
        };
        Ok(resolution.endpoints.iter().map(|endpoint| (port(endpoint), endpoint.priority)).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn each_resolver_is_a_group_and_the_first_answer_is_whole() {
        let ([first, second], mut resolving) = two();
        second.send(Ok(list(&[3, 1]))).unwrap();
        first.send(Ok(list(&[1, 2]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(1, 0), (2, 0), (3, 1)]), "1 belongs to the first");
        second.send(Ok(list(&[4]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(1, 0), (2, 0), (4, 1)]));
        first.send(Ok(list(&[]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(4, 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_one_never_empties_the_lists_of_the_others() {
        let ([first, second], mut resolving) = two();
        first.send(Err(error("no answer"))).unwrap();
        second.send(Ok(list(&[2]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(2, 1)]));
        assert_eq!(next(&mut resolving).await, Err(error("no answer")), "told beside");
        first.send(Ok(list(&[1]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(1, 0), (2, 1)]));
        second.send(Err(error("gone"))).unwrap();
        assert_eq!(next(&mut resolving).await, Err(error("gone")));
        first.send(Ok(list(&[5]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(5, 0), (2, 1)]), "the last good list stays");
    }

    #[tokio::test(start_paused = true)]
    async fn with_no_list_at_all_the_failures_are_told() {
        let ([first, second], mut resolving) = two();
        first.send(Err(error("a"))).unwrap();
        second.send(Err(error("b"))).unwrap();
        assert_eq!(next(&mut resolving).await, Err(error("a; b")));
        second.send(Ok(list(&[2]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(2, 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_that_is_silent_holds_up_the_others_for_half_a_second() {
        let ([first, second], mut resolving) = two();
        let begun = Instant::now();
        second.send(Ok(list(&[2]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(2, 1)]));
        assert_eq!(begun.elapsed(), FIRST_ANSWERS);
        first.send(Ok(list(&[1]))).unwrap();
        assert_eq!(next(&mut resolving).await, Ok(vec![(1, 0), (2, 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn lists_that_cannot_change_end_and_one_that_gives_up_is_a_failure() {
        let ([first, second], mut resolving) = two();
        first.send(Ok(list(&[1]))).unwrap();
        drop((first, second));
        assert_eq!(next(&mut resolving).await, Ok(vec![(1, 0)]));
        assert!(next(&mut resolving).await.unwrap_err().message.contains("rank 1 has ended without an answer"));
        assert_eq!(resolving.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn own_priorities_do_not_count_and_the_service_config_is_the_firsts() {
        let ([first, second], mut resolving) = two();
        first.send(Ok(Resolution::new(vec![endpoint(1).with_priority(7)]).with_service_config("{}"))).unwrap();
        second.send(Ok(Resolution::new(vec![endpoint(2)]).with_service_config("[]"))).unwrap();
        let resolution = resolving.next().await.unwrap().unwrap();
        assert_eq!(resolution.endpoints, [endpoint(1), endpoint(2).with_priority(1)]);
        assert_eq!(resolution.service_config, Some(Ok("{}".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_reaches_every_resolver() {
        struct Asked(mpsc::UnboundedSender<()>);
        impl Resolver for Asked {
            fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
                Box::pin(async move {
                    loop {
                        updates.requested().await;
                        let _ = self.0.send(());
                    }
                })
            }
        }
        let (sender, mut asked) = mpsc::unbounded_channel();
        let resolvers: [Box<dyn Resolver>; 2] = [Box::new(Asked(sender.clone())), Box::new(Asked(sender))];
        let resolving = start(Box::new(Ranked::new(resolvers)));
        resolving.resolve_now();
        asked.recv().await.unwrap();
        asked.recv().await.unwrap();
        drop(resolving);
        assert_eq!(asked.recv().await, None, "they end with it");
    }
}
