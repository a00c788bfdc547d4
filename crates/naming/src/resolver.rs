use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use evenkeel_balance::Endpoint;
use tokio::{sync::Notify, task::JoinHandle};

use crate::ResolveError;

/// What a target resolves to now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolution {
    /// Every endpoint there is: a new resolution replaces the one before. An empty list means that the service has no
    /// endpoints, so a resolver that merely failed to find them sends a [`ResolveError`] instead.
    pub endpoints: Vec<Endpoint>,
    /// The service config that came with the endpoints, as JSON that nobody has parsed yet, or why it is none (gRFC
    /// A21). The config before stays in force under an error, and as in grpc-go under `None`.
    pub service_config: Option<Result<String, ResolveError>>,
}

impl Resolution {
    /// Endpoints without a service config.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, service_config: None }
    }

    /// The same endpoints with a service config, as JSON.
    #[must_use]
    pub fn with_service_config(self, json: impl Into<String>) -> Self {
        Self { service_config: Some(Ok(json.into())), ..self }
    }
}

/// One step of a resolver: a new resolution, or why there is none.
pub type Outcome = Result<Resolution, ResolveError>;

/// A source of endpoints for one target.
///
/// The built-in ones are behind [`Target::resolver`](crate::Target::resolver). One of your own asks a registry, say, at
/// an interval and when the channel wants to know sooner:
///
/// ```
/// use std::{net::SocketAddr, pin::Pin, time::Duration};
/// use evenkeel_balance::Endpoint;
/// use evenkeel_naming::{FailureKind, Outcome, Resolution, ResolveError, Resolver, Updates, start};
///
/// struct Registry {
///     service: String,
///     interval: Duration,
/// }
///
/// impl Registry {
///     /// Stands for a question to a real registry, which may fail.
///     async fn ask(&self) -> Result<Vec<SocketAddr>, std::io::Error> {
///         Ok(vec![([10, 0, 0, 1], 50051).into(), ([10, 0, 0, 2], 50051).into()])
///     }
///
///     async fn resolve(&self) -> Outcome {
///         let addresses = self.ask().await.map_err(|error| {
///             let message = format!("cannot ask the registry for `{}`: {error}", self.service);
///             ResolveError::new(FailureKind::Unreachable, message)
///         })?;
///         Ok(Resolution::new(addresses.into_iter().map(Endpoint::new).collect()))
///     }
/// }
///
/// impl Resolver for Registry {
///     fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
///         Box::pin(async move {
///             loop {
///                 // An error leaves the last endpoints in use, and an equal list is no news: both may be sent freely.
///                 updates.send(self.resolve().await);
///                 // The least time between two questions, then the first of the interval and a request.
///                 tokio::time::sleep(Duration::from_secs(1)).await;
///                 let _ = tokio::time::timeout(self.interval, updates.requested()).await;
///             }
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ResolveError> {
/// let registry = Registry { service: "greeter".to_owned(), interval: Duration::from_secs(30) };
/// let mut resolving = start(Box::new(registry));
/// let resolution = resolving.next().await.expect("it never ends")?;
/// assert_eq!(resolution.endpoints.len(), 2);
/// # Ok(())
/// # }
/// ```
pub trait Resolver: Send + 'static {
    /// Resolves until there is nothing left to watch for; a list that cannot change is sent once.
    ///
    /// The future is dropped at any await point when the channel is dropped. It retries failures by itself, with
    /// backoff: after an error nobody asks it to.
    fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Runs `resolver` as a tokio task, until the returned value is dropped.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(resolver: Box<dyn Resolver>) -> Resolving {
    let link = Arc::new(Link::default());
    let updates = Updates { link: link.clone() };
    Resolving { link, task: tokio::spawn(async move { resolver.run(updates).await }) }
}

/// The resolver's end: it sends outcomes and hears requests.
pub struct Updates {
    link: Arc<Link>,
}

impl Updates {
    /// Tells the channel. Never waits: an outcome that nobody has read yet is replaced by a newer one, except that an
    /// error never hides an unread resolution. An outcome equal to the one before it is dropped.
    pub fn send(&self, outcome: Outcome) {
        self.link.mailbox().put(outcome);
        self.link.sent.notify_one();
    }

    /// Resolves when the channel asked to resolve again since the last time. Requests coalesce; cancel-safe.
    ///
    /// A busy channel asks each time a connection fails, so a resolver that costs something limits its own rate.
    pub async fn requested(&self) {
        while !self.link.is_requested.swap(false, Ordering::AcqRel) {
            self.link.requested.notified().await;
        }
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.link.mailbox().closed = true;
        self.link.sent.notify_one();
    }
}

/// A running resolver: the channel's end. Dropping it stops the resolver.
pub struct Resolving {
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl Resolving {
    /// The next outcome, or `None` when the resolver has ended and all was read. Cancel-safe.
    ///
    /// A list that cannot change ends at once: its resolution stays valid. `None` before any resolution means that the
    /// resolver gave up or panicked.
    pub async fn next(&mut self) -> Option<Outcome> {
        self.outcome().await
    }

    /// As [`next`](Self::next), for one reader at a time.
    pub(crate) async fn outcome(&self) -> Option<Outcome> {
        loop {
            {
                let mut mailbox = self.link.mailbox();
                match mailbox.take() {
                    None if mailbox.closed => return None,
                    None => {}
                    outcome => return outcome,
                }
            }
            self.link.sent.notified().await;
        }
    }

    /// Asks the resolver to resolve again, say because a connection failed. Cheap; the resolver limits the rate.
    pub fn resolve_now(&self) {
        self.link.is_requested.store(true, Ordering::Release);
        self.link.requested.notify_one();
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updates").finish_non_exhaustive()
    }
}

impl fmt::Debug for Resolving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolving").finish_non_exhaustive()
    }
}

/// What the two ends share.
#[derive(Default)]
struct Link {
    mailbox: Mutex<Mailbox>,
    sent: Notify,
    /// Wakes the resolver to look at `is_requested`; alone it would count one request too many.
    requested: Notify,
    is_requested: AtomicBool,
}

impl Link {
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // No method of `Mailbox` panics between two writes, so a poisoned one is still whole.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The unread outcomes: at most one resolution, and one error that came after it.
///
/// A queue would grow without bound under a slow reader, and a single slot would let an error overwrite a list.
#[derive(Default)]
struct Mailbox {
    last: Option<Outcome>,
    resolution: Option<Resolution>,
    error: Option<ResolveError>,
    closed: bool,
}

impl Mailbox {
    fn put(&mut self, outcome: Outcome) {
        if self.last.as_ref() == Some(&outcome) {
            return;
        }
        self.last = Some(outcome.clone());
        match outcome {
            Ok(resolution) => {
                self.resolution = Some(resolution);
                self.error = None;
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn take(&mut self) -> Option<Outcome> {
        self.resolution.take().map(Ok).or_else(|| self.error.take().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    fn resolution(port: u16) -> Resolution {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        Resolution::new(vec![Endpoint::new(address)])
    }

    fn error() -> ResolveError {
        ResolveError::new(FailureKind::TimedOut, "no answer")
    }

    /// Sends one outcome, then another port at each request.
    struct Counting;

    impl Resolver for Counting {
        fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move {
                for port in 1.. {
                    updates.send(Ok(resolution(port)));
                    updates.requested().await;
                }
            })
        }
    }

    #[tokio::test]
    async fn a_request_resolves_again_and_requests_coalesce() {
        let mut resolving = start(Box::new(Counting));
        assert_eq!(resolving.next().await, Some(Ok(resolution(1))));
        resolving.resolve_now();
        resolving.resolve_now();
        assert_eq!(resolving.next().await, Some(Ok(resolution(2))));
        resolving.resolve_now();
        assert_eq!(resolving.next().await, Some(Ok(resolution(3))));
    }

    #[tokio::test]
    async fn a_cancelled_next_loses_nothing() {
        let mut resolving = start(Box::new(Counting));
        {
            // The runtime has one thread: the resolver cannot have run before this poll.
            let mut next = std::pin::pin!(resolving.next());
            std::future::poll_fn(|cx| {
                assert!(next.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
        assert_eq!(resolving.next().await, Some(Ok(resolution(1))));
    }

    #[test]
    fn an_error_never_hides_a_resolution_and_repeats_are_dropped() {
        let mut mailbox = Mailbox::default();
        mailbox.put(Ok(resolution(1)));
        mailbox.put(Ok(resolution(2)));
        mailbox.put(Err(error()));
        assert_eq!(mailbox.take(), Some(Ok(resolution(2))));
        assert_eq!(mailbox.take(), Some(Err(error())));
        mailbox.put(Err(error()));
        assert_eq!(mailbox.take(), None);
        mailbox.put(Ok(resolution(2)));
        assert_eq!(mailbox.take(), Some(Ok(resolution(2))), "a recovery is news even if the list is the same");
    }

    struct Panicking;

    impl Resolver for Panicking {
        fn run(self: Box<Self>, _: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            panic!("a resolver of a user panics, and says so on stderr")
        }
    }

    #[tokio::test]
    async fn a_resolver_that_ends_or_panics_ends_the_outcomes() {
        assert_eq!(start(Box::new(Panicking)).next().await, None);
        let mut fixed = start(Box::new(crate::fixed::Fixed::new([])));
        assert_eq!(fixed.next().await, Some(Ok(Resolution::new(vec![]))));
        assert_eq!(fixed.next().await, None);
        assert_eq!(fixed.next().await, None);
    }

    #[tokio::test]
    async fn dropping_the_channels_end_drops_the_resolver() {
        struct Held(Arc<Notify>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        impl Resolver for Held {
            fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
                Box::pin(async move {
                    loop {
                        updates.requested().await;
                        let Held(_) = &*self;
                    }
                })
            }
        }
        let dropped = Arc::new(Notify::new());
        drop(start(Box::new(Held(dropped.clone()))));
        dropped.notified().await;
    }
}
