//! Which services there are, how they are, and who waits to hear of a change. Sans-IO: what a change has to cause is
//! returned as [`Effects`], so that nothing runs while the registry is locked.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::caller::Caller;
use crate::{Limits, ServingStatus, metrics};

/// Where a server is in its life.
///
/// ```text
///          shutdown                begin_drain              close
///   Open ───────────► ShutDown ─────────────────► Draining ───────► Closed
///     ◄───────────────   │                            ▲
///          resume                                     │
///     └───────────────────────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Services show the statuses that they were given.
    Open,
    /// Registered services show `NOT_SERVING`.
    ShutDown,
    /// As [`Phase::ShutDown`], for good.
    Draining,
    /// As [`Phase::Draining`], and nobody can watch.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Registry {
    phase: Phase,
    /// Services that are registered, and names that are watched. Others are not kept.
    services: BTreeMap<Arc<str>, Service>,
    watchers: usize,
    /// How many watchers each caller has that has any.
    callers: HashMap<Caller, usize>,
    limits: Limits,
    next_watcher: u64,
}

#[derive(Debug, Default)]
struct Service {
    /// The status as it was last set; none when the service is not registered.
    set: Option<ServingStatus>,
    /// What its self-checks allow, where it has some: a service that is set to SERVING shows this.
    checked: Option<ServingStatus>,
    /// Who watches, each with how to wake it if it waits.
    watchers: BTreeMap<u64, Option<Waker>>,
}

/// One `Watch`; to be handed back to [`Registry::unwatch`].
#[derive(Debug)]
pub(crate) struct Watcher {
    service: Arc<str>,
    caller: Option<Caller>,
    id: u64,
    seen: Option<ServingStatus>,
}

/// Why a `Watch` cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NameTooLong,
    TooManyWatchers,
    TooManyOfCaller,
    Closed,
}

impl Refusal {
    /// The value of a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NameTooLong => "name",
            Self::TooManyWatchers => "server",
            Self::TooManyOfCaller => "connection",
            Self::Closed => "draining",
        }
    }
}

/// The longest name, in bytes, that is kept for a watcher of a service that is not registered.
pub(crate) const MAX_UNREGISTERED_NAME: usize = 256;

impl Registry {
    pub(crate) fn new(limits: Limits) -> Self {
        let server = Service { set: Some(ServingStatus::Serving), ..Service::default() };
        let services = BTreeMap::from([(Arc::from(""), server)]);
        Self { phase: Phase::Open, services, watchers: 0, callers: HashMap::new(), limits, next_watcher: 0 }
    }

    pub(crate) fn status(&self, service: &str) -> ServingStatus {
        self.services.get(service).map_or(ServingStatus::ServiceUnknown, |service| service.shown(self.phase))
    }

    /// The registered services, by name.
    pub(crate) fn registered(&self) -> impl Iterator<Item = (&str, ServingStatus)> {
        let registered = self.services.iter().filter(|(_, service)| service.set.is_some());
        registered.map(|(name, service)| (&**name, service.shown(self.phase)))
    }

    /// Registers a service or changes its status; [`ServingStatus::ServiceUnknown`] takes it out.
    pub(crate) fn set(&mut self, name: &str, status: ServingStatus) -> Effects {
        let status = (status != ServingStatus::ServiceUnknown).then_some(status);
        self.edit(name, |service| service.set = status)
    }

    /// What a service's self-checks allow it to show, or that it has none any more. It need not be registered yet.
    pub(crate) fn set_checked(&mut self, name: &str, checked: Option<ServingStatus>) -> Effects {
        self.edit(name, |service| service.checked = checked)
    }

    /// The status as it was last set by hand.
    pub(crate) fn status_by_hand(&self, name: &str) -> Option<ServingStatus> {
        self.services.get(name).and_then(|service| service.set)
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Service)) -> Effects {
        let (name, mut service) =
            self.services.remove_entry(name).unwrap_or_else(|| (Arc::from(name), Service::default()));
        let before = service.shown(self.phase);
        edit(&mut service);
        let mut effects = Effects::default();
        effects.note(&name, before, &mut service, self.phase);
        if service.is_wanted() {
            self.services.insert(name, service);
        }
        effects
    }

    pub(crate) fn shutdown(&mut self) -> Effects {
        self.step(&[Phase::Open], Phase::ShutDown)
    }

    pub(crate) fn resume(&mut self) -> Effects {
        self.step(&[Phase::ShutDown], Phase::Open)
    }

    pub(crate) fn begin_drain(&mut self) -> Effects {
        self.step(&[Phase::Open, Phase::ShutDown], Phase::Draining)
    }

    /// Ends every watch, and lets none start.
    pub(crate) fn close(&mut self) -> Effects {
        let mut effects = self.step(&[Phase::Draining], Phase::Closed);
        effects.wake.extend(self.services.values_mut().flat_map(Service::take_wakers));
        effects
    }

    /// Begins a watch of a caller; one that cannot be told from others is `None`, and has no limit of its own.
    pub(crate) fn watch(&mut self, name: &str, caller: Option<Caller>) -> Result<Watcher, Refusal> {
        let known = self.services.get_key_value(name).map(|(name, _)| name.clone());
        let of_caller = caller.and_then(|caller| self.callers.get(&caller)).copied().unwrap_or_default();
        if self.phase == Phase::Closed {
            return Err(Refusal::Closed);
        } else if self.watchers >= self.limits.max_watchers {
            return Err(Refusal::TooManyWatchers);
        } else if caller.is_some() && of_caller >= self.limits.max_watchers_per_connection {
            return Err(Refusal::TooManyOfCaller);
        } else if known.is_none() && name.len() > MAX_UNREGISTERED_NAME {
            return Err(Refusal::NameTooLong);
        }
        let service = known.unwrap_or_else(|| Arc::from(name));
        let id = self.next_watcher;
        self.next_watcher += 1;
        self.watchers += 1;
        self.callers.extend(caller.map(|caller| (caller, of_caller + 1)));
        self.services.entry(service.clone()).or_default().watchers.insert(id, None);
        Ok(Watcher { service, caller, id, seen: None })
    }

    /// The next status that the watcher has not seen; `None` when its watch has ended.
    pub(crate) fn poll_watch(&mut self, watcher: &mut Watcher, cx: &Context<'_>) -> Poll<Option<ServingStatus>> {
        let shown = self.status(&watcher.service);
        if watcher.seen.replace(shown) != Some(shown) {
            return Poll::Ready(Some(shown));
        } else if self.phase == Phase::Closed {
            return Poll::Ready(None);
        }
        if let Some(service) = self.services.get_mut(&watcher.service) {
            service.watchers.insert(watcher.id, Some(cx.waker().clone()));
        }
        Poll::Pending
    }

    pub(crate) fn unwatch(&mut self, watcher: &Watcher) {
        let Some(service) = self.services.get_mut(&watcher.service) else { return };
        if service.watchers.remove(&watcher.id).is_some() {
            self.watchers -= 1;
            watcher.caller.into_iter().for_each(|caller| leave(&mut self.callers, caller));
        }
        if !service.is_wanted() {
            self.services.remove(&watcher.service);
        }
    }

    /// Moves to a phase from one of those that lead to it; from another one nothing happens.
    fn step(&mut self, from: &[Phase], to: Phase) -> Effects {
        let mut effects = Effects::default();
        if !from.contains(&self.phase) {
            return effects;
        }
        let before = std::mem::replace(&mut self.phase, to);
        for (name, service) in &mut self.services {
            let shown = service.shown(before);
            effects.note(name, shown, service, to);
        }
        effects
    }
}

/// Takes one watcher from a caller's count.
fn leave(callers: &mut HashMap<Caller, usize>, caller: Caller) {
    if let Entry::Occupied(mut count) = callers.entry(caller) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Service {
    fn shown(&self, phase: Phase) -> ServingStatus {
        match (self.set, phase) {
            (None, _) => ServingStatus::ServiceUnknown,
            (Some(ServingStatus::Serving), Phase::Open) => self.checked.unwrap_or(ServingStatus::Serving),
            (Some(status), Phase::Open) => status,
            (Some(_), Phase::ShutDown | Phase::Draining | Phase::Closed) => ServingStatus::NotServing,
        }
    }

    fn is_wanted(&self) -> bool {
        self.set.is_some() || self.checked.is_some() || !self.watchers.is_empty()
    }

    fn take_wakers(&mut self) -> impl Iterator<Item = Waker> {
        self.watchers.values_mut().filter_map(Option::take)
    }
}

/// What a change causes outside of the registry.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Effects {
    wake: Vec<Waker>,
    changed: Vec<(Arc<str>, ServingStatus)>,
}

impl Effects {
    /// To be called without the registry's lock.
    pub(crate) fn run(self) {
        for (service, status) in self.changed {
            tracing::info!(%service, %status, "health status changed");
            metrics::shown(&service, status);
        }
        self.wake.into_iter().for_each(Waker::wake);
    }

    fn note(&mut self, name: &Arc<str>, before: ServingStatus, service: &mut Service, phase: Phase) {
        let shown = service.shown(phase);
        if shown != before {
            self.changed.push((name.clone(), shown));
            self.wake.extend(service.take_wakers());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServingStatus::{NotServing, ServiceUnknown, Serving};

    fn poll(registry: &mut Registry, watcher: &mut Watcher) -> Poll<Option<ServingStatus>> {
        registry.poll_watch(watcher, &Context::from_waker(Waker::noop()))
    }

    fn registry(max_watchers: usize) -> Registry {
        Registry::new(Limits { max_watchers, ..Limits::default() })
    }

    #[test]
    fn a_caller_has_its_own_limit_and_nothing_is_kept_of_one_that_left() {
        let limits = Limits { max_watchers: 10, max_watchers_per_connection: 2 };
        let mut registry = Registry::new(limits);
        let [one, two] = [1, 2].map(|port| Some(Caller::Address(([127, 0, 0, 1], port).into())));
        let watchers = [registry.watch("", one).unwrap(), registry.watch("a", one).unwrap()];
        assert_eq!(registry.watch("", one).unwrap_err(), Refusal::TooManyOfCaller);
        let neighbour = registry.watch("", two).expect("a neighbour is not concerned");
        registry.unwatch(&watchers[0]);
        registry.unwatch(&watchers[0]);
        let again = registry.watch("", one).expect("one has left");
        assert_eq!(registry.watch("", one).unwrap_err(), Refusal::TooManyOfCaller);
        for watcher in [&watchers[1], &neighbour, &again] {
            registry.unwatch(watcher);
        }
        assert_eq!((registry.watchers, registry.callers.len()), (0, 0));
    }

    #[test]
    fn names_that_are_neither_registered_nor_watched_are_not_kept() {
        let mut registry = registry(10);
        let watchers = [
            registry.watch("a", None).unwrap(),
            registry.watch("a", None).unwrap(),
            registry.watch("b", None).unwrap(),
        ];
        assert_eq!((registry.services.len(), registry.watchers), (3, 3));
        registry.set("a", Serving).run();
        for watcher in &watchers {
            registry.unwatch(watcher);
        }
        assert_eq!((registry.services.len(), registry.watchers), (2, 0), "the server and the registered `a`");
        registry.set("a", ServiceUnknown).run();
        registry.set("never registered", ServiceUnknown).run();
        assert_eq!(registry.services.len(), 1);
    }

    #[test]
    fn a_cleared_service_is_kept_for_its_watcher() {
        let mut registry = registry(10);
        registry.set("a", Serving).run();
        let mut watcher = registry.watch("a", None).unwrap();
        assert_eq!(poll(&mut registry, &mut watcher), Poll::Ready(Some(Serving)));
        registry.set("a", ServiceUnknown).run();
        assert_eq!(poll(&mut registry, &mut watcher), Poll::Ready(Some(ServiceUnknown)));
        assert_eq!(poll(&mut registry, &mut watcher), Poll::Pending);
        assert_eq!(registry.registered().collect::<Vec<_>>(), [("", Serving)]);
        registry.unwatch(&watcher);
        assert_eq!(registry.services.len(), 1);
    }

    #[test]
    fn a_watch_is_refused_above_the_limits_and_after_the_end() {
        let mut registry = registry(1);
        let long = "n".repeat(MAX_UNREGISTERED_NAME + 1);
        assert_eq!(registry.watch(&long, None).unwrap_err(), Refusal::NameTooLong);
        registry.set(&long, Serving).run();
        let watcher = registry.watch(&long, None).expect("a registered name may have any length");
        assert_eq!(registry.watch("", None).unwrap_err(), Refusal::TooManyWatchers);
        registry.unwatch(&watcher);
        registry.begin_drain().run();
        let watcher = registry.watch("", None).expect("a drain still tells NOT_SERVING");
        registry.unwatch(&watcher);
        registry.close().run();
        assert_eq!(registry.watch("", None).unwrap_err(), Refusal::Closed);
    }

    #[test]
    fn a_watcher_hears_the_last_status_before_its_watch_ends() {
        let mut registry = registry(1);
        let mut watcher = registry.watch("", None).unwrap();
        assert_eq!(poll(&mut registry, &mut watcher), Poll::Ready(Some(Serving)));
        registry.begin_drain().run();
        registry.close().run();
        assert_eq!(poll(&mut registry, &mut watcher), Poll::Ready(Some(NotServing)));
        assert_eq!(poll(&mut registry, &mut watcher), Poll::Ready(None));
    }

    #[test]
    fn a_drain_cannot_be_resumed() {
        let mut registry = registry(1);
        registry.shutdown().run();
        registry.begin_drain().run();
        registry.resume().run();
        registry.set("a", Serving).run();
        assert_eq!(registry.registered().collect::<Vec<_>>(), [("", NotServing), ("a", NotServing)]);
    }

    #[test]
    fn close_without_a_drain_changes_nothing() {
        let mut registry = registry(1);
        registry.close().run();
        assert_eq!(registry.status(""), Serving);
        registry.watch("", None).expect("still open");
    }
}
