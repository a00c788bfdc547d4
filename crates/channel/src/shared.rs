//! What the clones of a channel and its driver share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::{ArcSwap, Guard};
use evenkeel_balance::{Input, Status, SubchannelId, Time};
use http::{Uri, header, request, uri};
use tokio::sync::{mpsc::UnboundedSender, watch};

use evenkeel_transport::Clock;

use crate::{
    dialling::Dialling,
    lanes::Lanes,
    message::Message,
    method::Methods,
    report::Report,
    request::{ReplayLimits, ReplayMemory},
    snapshot::Snapshot,
};

/// What calls work with: the data plane's side of a channel.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    /// The one strong sender: when it goes, the driver ends.
    pub(crate) driver: UnboundedSender<Message>,
    pub(crate) reports: watch::Receiver<Arc<Report>>,
}

/// What calls and the driver share.
pub(crate) struct Shared {
    pub(crate) target: String,
    pub(crate) authority: uri::Authority,
    pub(crate) scheme: uri::Scheme,
    pub(crate) clock: Clock,
    /// The wall clock when `clock` started.
    epoch: SystemTime,
    pub(crate) lanes: Lanes,
    pub(crate) methods: Methods,
    pub(crate) replays: Arc<ReplayMemory>,
    pub(crate) dialling: Dialling,
    snapshot: ArcSwap<Snapshot>,
    /// Of the newest snapshot, for whoever keeps one and looks often whether it is still that.
    newest: AtomicU64,
    version: watch::Sender<u64>,
}

impl std::ops::Deref for Core {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Core {
    /// Has the driver connect, if it has not begun to.
    pub(crate) fn exit_idle(&self) {
        // Fails only where the runtime is shutting down, which ends the caller too.
        let _ = self.driver.send(Message::Input(Input::ExitIdle));
    }

    /// Has the driver make another connection to a subchannel whose streams are all in use, if it may.
    pub(crate) fn saturated(&self, id: SubchannelId) {
        // As above.
        let _ = self.driver.send(Message::Input(Input::Saturated(id)));
    }
}

impl Shared {
    pub(crate) fn new(
        target: String,
        scheme: uri::Scheme,
        authority: uri::Authority,
        seed: u64,
        replays: ReplayLimits,
        dialling: Dialling,
        first: Snapshot,
    ) -> Self {
        let snapshot = ArcSwap::from_pointee(first);
        let (clock, epoch) = (Clock::start(), SystemTime::now());
        let (lanes, version) = (Lanes::new(seed), watch::Sender::new(0));
        let (methods, replays) = (Methods::new(&target), Arc::new(ReplayMemory::new(replays)));
        let newest = AtomicU64::new(0);
        Self { target, authority, scheme, clock, epoch, lanes, methods, replays, dialling, snapshot, newest, version }
    }

    /// The newest snapshot, to look into: it is not to be held for long.
    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The version of the newest snapshot: [`snapshot`](Self::snapshot) is that or a newer one.
    pub(crate) fn newest_version(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Hears of new snapshots.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// 64 random bits.
    pub(crate) fn random(&self) -> u64 {
        self.lanes.random(self.lanes.mine())
    }

    /// `time` by the wall clock as it stood when the channel was made, so that one moment is always shown the same.
    pub(crate) fn wall_clock(&self, time: Time) -> SystemTime {
        self.epoch.checked_add(time.since(Time::ZERO)).unwrap_or(self.epoch)
    }

    /// Scheme and authority: what the channel's own calls are addressed to.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let version = snapshot.version;
        self.snapshot.store(Arc::new(snapshot));
        self.newest.store(version, Ordering::Release);
        self.version.send_replace(version);
    }

    /// Waits for a snapshot that is newer than `version`.
    pub(crate) async fn newer_than(&self, version: u64) -> Result<(), Status> {
        let mut versions = self.version.subscribe();
        let newer = versions.wait_for(|newest| *newest > version).await;
        newer.map(drop).map_err(|_| Status::unavailable("the channel is shutting down"))
    }

    /// Fills in what a generated client leaves to its channel: scheme, authority and user agent. A request that has
    /// an authority comes from further away, and keeps what it brought; the scheme is that of our own connections.
    pub(crate) fn complete(&self, head: &mut request::Parts) {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        if parts.authority.is_none() {
            let agent = header::HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));
            head.headers.entry(header::USER_AGENT).or_insert(agent);
        }
        parts.scheme = Some(self.scheme.clone());
        parts.authority.get_or_insert_with(|| self.authority.clone());
        parts.path_and_query.get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    }
}
