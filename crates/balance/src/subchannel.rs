mod checked;
mod id;
mod state;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use checked::Checked;
pub use id::{ConnectionId, SubchannelId};
pub use state::SubchannelState;
use state::{Opinion, Ready, State, Subchannel};

use crate::{
    Address, Backoff, CheckNews, CheckSettings, CheckSettingsError, Connectivity, Decision, Entropy, HealthCheck,
    HealthSignal, History, Load, Loss, Measurement, Status, SubchannelReport, Time, Transition, Value,
    deadlines::Deadlines, decision::What, further::FurtherEnd, health::Health, loss,
};

/// How connections are made and judged.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// Between failed attempts. Default: gRPC's, 1 s × 1.6 up to 120 s, ± 20 %.
    pub backoff: Backoff,
    /// An attempt that takes longer has failed. Default 20 s, gRPC's minimum connect time-out.
    pub connect_timeout: Duration,
    /// An endpoint that has carried calls and was lost is likely to be restarting: while attempts find nobody
    /// listening, it is tried again after this, ± 20 %, in place of the backoff. Default 200 ms.
    pub return_interval: Duration,
    /// For how long after the loss; then the backoff takes over. Default 60 s; zero turns the quick return off.
    pub return_window: Duration,
    /// How many connections an address may have where the server allows too few streams on one (gRFC A105). Default 1;
    /// a service config may ask for more.
    pub max_connections: usize,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(20),
            return_interval: Duration::from_millis(200),
            return_window: Duration::from_secs(60),
            max_connections: 1,
        }
    }
}

/// How the quick return is spread, so that many clients do not come at once.
const RETURN_JITTER: f64 = 0.2;

/// How long a dial beside a silent connection has, before the next one: TCP repeats its own ever more slowly.
const SECOND_DIAL: Duration = Duration::from_secs(1);

/// Counts the verdicts that checks come to.
const CHECK_TRANSITIONS: &str = "evenkeel.check.transitions";

/// How an attempt or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nobody listens there.
    Refused,
    /// A connection, in this way.
    Lost(Loss),
    /// In any other way.
    Other,
}

impl Ending {
    fn loss(self) -> Loss {
        match self {
            Self::Lost(loss) => loss,
            Self::Refused | Self::Other => Loss::Unknown,
        }
    }
}

/// What a subchannel needs from the driver; [`Action`](crate::Action) has the words for each.
#[derive(Debug)]
pub(crate) enum Errand {
    Connect(ConnectionId, Address, Arc<Load>),
    Close(ConnectionId),
    WatchHealth(ConnectionId, String),
    /// Probe an address, by this time.
    Check(SubchannelId, Address, Time),
    /// Probe it no more.
    EndChecks(SubchannelId),
    WatchLoad(ConnectionId, Duration),
    Note(Decision),
    Measure(Measurement),
}

/// Every subchannel of a channel, one an address, shared by all policies of the tree.
///
/// Sharing is why a policy can be replaced by another without reconnecting, and why an update that names the same
/// addresses in another order opens and closes nothing.
#[derive(Debug)]
pub(crate) struct Subchannels {
    settings: ConnectionSettings,
    health_check: Option<HealthCheck>,
    checks: Option<CheckSettings>,
    entropy: Entropy,
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_address: BTreeMap<Address, SubchannelId>,
    /// What may be held by nobody.
    orphans: Vec<SubchannelId>,
    /// What policies hold against an address or for it, in whatever state its connection is.
    opinions: BTreeMap<Address, Opinion>,
    deadlines: Deadlines<SubchannelId>,
    /// Whose state has changed and whose holders have yet to hear of it.
    changed: VecDeque<SubchannelId>,
    errands: VecDeque<Errand>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    subchannel: Option<Subchannel>,
}

impl Subchannels {
    pub(crate) fn new(settings: ConnectionSettings, entropy: Entropy) -> Self {
        Self {
            settings,
            health_check: None,
            checks: None,
            entropy,
            slots: Vec::new(),
            vacant: Vec::new(),
            by_address: BTreeMap::new(),
            orphans: Vec::new(),
            opinions: BTreeMap::new(),
            deadlines: Deadlines::default(),
            changed: VecDeque::new(),
            errands: VecDeque::new(),
        }
    }

    /// The subchannel of `address`, made if need be, with one more holder.
    pub(crate) fn acquire(&mut self, now: Time, address: &Address) -> SubchannelId {
        if let Some(&id) = self.by_address.get(address) {
            if let Some(subchannel) = self.get_mut(id) {
                subchannel.holders += 1;
            }
            return id;
        }
        let id = self.vacant_slot();
        let opinion = self.opinions.get(address).cloned().unwrap_or_default();
        let mut subchannel = Subchannel::new(now, address.clone(), opinion);
        subchannel.checked =
            self.checks.map(|settings| Checked::new(settings, now, &subchannel.load, &mut self.entropy));
        self.slots[id.slot()].subchannel = Some(subchannel);
        self.by_address.insert(address.clone(), id);
        self.reschedule(id);
        id
    }

    fn vacant_slot(&mut self) -> SubchannelId {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, subchannel: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 subchannels")
        });
        let generation = &mut self.slots[slot as usize].generation;
        *generation = generation.wrapping_add(1);
        SubchannelId { slot, generation: *generation }
    }

    /// Gives up one hold on `id`. Whatever nobody holds at the next [`sweep`](Self::sweep) is closed: until then another
    /// policy can take it over, connection and backoff and all.
    pub(crate) fn release(&mut self, id: SubchannelId) {
        let Some(subchannel) = self.get_mut(id) else { return };
        subchannel.holders -= 1;
        if subchannel.holders == 0 {
            self.orphans.push(id);
        }
    }

    /// Closes what nobody holds.
    pub(crate) fn sweep(&mut self) {
        for id in std::mem::take(&mut self.orphans) {
            if self.get(id).is_some_and(|subchannel| subchannel.holders == 0) {
                self.close(id);
            }
        }
    }

    fn close(&mut self, id: SubchannelId) {
        let Some(subchannel) = self.get(id) else { return };
        let connection = subchannel.connection(id);
        let was_open = matches!(subchannel.state, State::Ready(_));
        self.errands.extend(connection.map(Errand::Close));
        if was_open {
            self.count_closed(None);
        }
        self.deadlines.set(id, None);
        if let Some(mut gone) = self.slots[id.slot()].subchannel.take() {
            for _ in 0..gone.further.len() {
                self.count_closed(None);
            }
            let further = gone.further.take().map(|attempt| ConnectionId { subchannel: id, attempt });
            self.errands.extend(further.map(Errand::Close));
            self.errands.extend(gone.checked.map(|_| Errand::EndChecks(id)));
            self.by_address.remove(&gone.address);
            self.vacant.push(id.slot);
        }
    }

    /// Starts an attempt where the subchannel is IDLE; does nothing in any other state.
    pub(crate) fn connect(&mut self, now: Time, id: SubchannelId) {
        let timeout = self.settings.connect_timeout;
        let Some(subchannel) = self.get_mut(id) else { return };
        if !matches!(subchannel.state, State::Idle) {
            return;
        }
        let attempt = subchannel.next_attempt();
        subchannel.attempt = attempt;
        let (address, load) = (subchannel.address.clone(), Arc::clone(&subchannel.load));
        // How the last connection or attempt ended says more than "connecting" would.
        let reason = if attempt > 1 { subchannel.reason.clone() } else { "connecting".to_owned() };
        subchannel.become_(now, State::Connecting { deadline: now + timeout }, reason);
        let connection = ConnectionId { subchannel: id, attempt };
        self.errands.push_back(Errand::Connect(connection, address, load));
        self.has_changed(id);
    }

    /// An attempt has made its connection.
    pub(crate) fn connected(&mut self, now: Time, connection: ConnectionId) {
        let check = self.health_check.clone();
        if self.further_connected(now, connection) {
            return;
        }
        let Some(subchannel) = self.current(connection) else { return };
        if !matches!(subchannel.state, State::Connecting { .. }) {
            return;
        }
        let health = Health::new(check);
        let watch = health.watched().map(str::to_owned);
        let ready = Ready { health, stalled: None, since: now, started: subchannel.load.started() };
        let reason = ready.reason();
        subchannel.become_(now, State::Ready(Box::new(ready)), reason);
        let interval = subchannel.load_interval;
        self.errands.extend(loss::opened().map(Errand::Measure));
        self.errands.extend(watch.map(|service| Errand::WatchHealth(connection, service)));
        self.errands.extend(interval.map(|interval| Errand::WatchLoad(connection, interval)));
        self.has_changed(connection.subchannel);
    }

    /// An attempt has failed, or a connection has ended.
    pub(crate) fn disconnected(&mut self, now: Time, connection: ConnectionId, why: &Status, ending: Ending) {
        let backoff = self.settings.backoff;
        if self.further_ended(now, connection, Some(ending.loss())) {
            return;
        }
        if self.replace_first(now, connection) {
            return self.count_closed(Some(ending.loss()));
        }
        let Some(subchannel) = self.current(connection) else { return };
        let (failed, was_open) = match &subchannel.state {
            State::Connecting { .. } => (true, false),
            State::Ready(ready) => {
                let useful = subchannel.load.started() > ready.started || now.since(ready.since) >= backoff.initial();
                if useful {
                    subchannel.failures = 0;
                    subchannel.lost_at = (subchannel.load.started() > 0).then_some(now);
                }
                // Else a peer that accepts and hangs up at once would be dialled in a tight loop.
                (!useful, true)
            }
            State::Idle | State::TransientFailure { .. } => return,
        };
        let state = if failed {
            State::TransientFailure { retry_at: now + self.delay(now, connection.subchannel, ending) }
        } else {
            State::Idle
        };
        if let Some(subchannel) = self.get_mut(connection.subchannel) {
            subchannel.become_(now, state, why.message.clone());
            // None is connected, or it would have taken the place of the first; an attempt would only be in the way.
            let further = subchannel.further.take();
            let id = connection.subchannel;
            self.errands.extend(further.map(|attempt| Errand::Close(ConnectionId { subchannel: id, attempt })));
        }
        if was_open {
            self.count_closed(Some(ending.loss()));
        } else {
            self.measure(loss::failed());
        }
        self.has_changed(connection.subchannel);
    }

    /// How long a failed attempt is followed by none.
    fn delay(&mut self, now: Time, id: SubchannelId, ending: Ending) -> Duration {
        let (settings, mut entropy) = (self.settings.clone(), self.entropy.clone());
        let Some(subchannel) = self.get_mut(id) else { return settings.backoff.initial() };
        let is_back_soon = subchannel.lost_at.is_some_and(|lost| now.since(lost) < settings.return_window);
        // The first attempt after the loss may have met a process in the act of dying, which does not say "refused".
        let is_quick = is_back_soon && (ending == Ending::Refused || subchannel.failures == 0);
        if ending != Ending::Refused || !is_quick {
            subchannel.failures = subchannel.failures.saturating_add(1);
        }
        let delay = if is_quick {
            entropy.jitter(settings.return_interval, RETURN_JITTER)
        } else {
            settings.backoff.delay(subchannel.failures, &mut entropy)
        };
        self.entropy = entropy;
        delay
    }

    /// A health Watch has said something about a connection.
    pub(crate) fn health(&mut self, now: Time, connection: ConnectionId, signal: HealthSignal) {
        let backoff = self.settings.backoff;
        let mut entropy = self.entropy.clone();
        self.when_ready(now, connection, |ready| ready.health.handle(now, signal, &backoff, &mut entropy));
        self.entropy = entropy;
    }

    /// Calls wait for a stream of `id`: its connections are full. One more is made if that is allowed (gRFC A105).
    pub(crate) fn saturated(&mut self, now: Time, id: SubchannelId) {
        let (most, timeout) = (self.settings.max_connections.saturating_sub(1), self.settings.connect_timeout);
        let Some(subchannel) = self.get_mut(id) else { return };
        if matches!(subchannel.state, State::Ready(_)) && subchannel.further.ask(now, most) {
            self.try_further(id, now + timeout);
        }
        self.reschedule(id);
    }

    fn try_further(&mut self, id: SubchannelId, deadline: Time) {
        let Some(subchannel) = self.get_mut(id) else { return };
        let attempt = subchannel.next_attempt();
        subchannel.further.start(attempt, deadline);
        let (address, load) = (subchannel.address.clone(), Arc::clone(&subchannel.load));
        self.errands.push_back(Errand::Connect(ConnectionId { subchannel: id, attempt }, address, load));
        self.reschedule(id);
    }

    fn further_connected(&mut self, now: Time, connection: ConnectionId) -> bool {
        let Some(subchannel) = self.get_mut(connection.subchannel) else { return false };
        let is_further = subchannel.further.connected(connection.attempt);
        if is_further {
            self.errands.extend(loss::opened().map(Errand::Measure));
        }
        self.reschedule(connection.subchannel);
        self.replace_stalled(now, connection.subchannel);
        is_further
    }

    /// Looks for a connection that lives beside a first one that has fallen silent, and puts it in its place. The
    /// network may have forgotten a connection whose server is well; TCP itself would take long to find that out.
    fn replace_stalled(&mut self, now: Time, id: SubchannelId) {
        let Some(subchannel) = self.get_mut(id) else { return };
        if !matches!(&subchannel.state, State::Ready(ready) if ready.stalled.is_some()) {
            return;
        }
        let silent = ConnectionId { subchannel: id, attempt: subchannel.attempt };
        if self.replace_first(now, silent) {
            self.errands.push_back(Errand::Close(silent));
            self.count_closed(Some(Loss::TimedOut));
        } else if self.get(id).is_some_and(|subchannel| !subchannel.further.is_trying()) {
            self.try_further(id, now + SECOND_DIAL);
        }
    }

    fn count_closed(&mut self, why: Option<Loss>) {
        self.errands.extend(loss::closed(why).map(Errand::Measure));
    }

    fn further_ended(&mut self, now: Time, connection: ConnectionId, why: Option<Loss>) -> bool {
        let (backoff, mut entropy) = (self.settings.backoff, self.entropy.clone());
        let Some(subchannel) = self.get_mut(connection.subchannel) else { return false };
        let end = subchannel.further.ended(now, connection.attempt, &backoff, &mut entropy);
        self.entropy = entropy;
        match end {
            Some(FurtherEnd::Attempt) => self.measure(loss::failed()),
            Some(FurtherEnd::Connection) => self.count_closed(why),
            None => return false,
        }
        self.reschedule(connection.subchannel);
        true
    }

    /// Puts the oldest further connection in the place of the first one, which has ended. The subchannel stays READY.
    fn replace_first(&mut self, now: Time, replaced: ConnectionId) -> bool {
        let id = replaced.subchannel;
        let Some(subchannel) = self.current(replaced) else { return false };
        let before = subchannel.service();
        let State::Ready(ready) = &mut subchannel.state else { return false };
        let Some(attempt) = subchannel.further.promote() else { return false };
        (subchannel.attempt, ready.stalled) = (attempt, None);
        subchannel.reason = ready.reason();
        let (connection, interval) = (ConnectionId { subchannel: id, attempt }, subchannel.load_interval);
        // What was known of the server's health holds until the new Watch says otherwise.
        let watch = ready.health.watched().map(str::to_owned);
        subchannel.note_service(now, before);
        self.errands.extend(watch.map(|service| Errand::WatchHealth(connection, service)));
        self.errands.extend(interval.map(|interval| Errand::WatchLoad(connection, interval)));
        self.has_changed(id);
        true
    }

    fn further_timeout(&mut self, now: Time, id: SubchannelId) {
        let Some(subchannel) = self.get_mut(id) else { return };
        let (overdue, is_due) = (subchannel.further.overdue(now), subchannel.further.is_due(now));
        if let Some(attempt) = overdue {
            let connection = ConnectionId { subchannel: id, attempt };
            self.further_ended(now, connection, Some(Loss::TimedOut));
            self.errands.push_back(Errand::Close(connection));
            self.replace_stalled(now, id);
        }
        if is_due {
            self.saturated(now, id);
        }
    }

    /// How many connections an address may have from now on. Those that there are stay.
    pub(crate) fn set_max_connections(&mut self, most: usize) {
        self.settings.max_connections = most.max(1);
    }

    /// A connection with calls outstanding has fallen silent (`Some(why)`), or has shown life again (`None`). A further
    /// one is closed once its calls have ended: others, or a new one, do its work.
    pub(crate) fn stalled(&mut self, now: Time, connection: ConnectionId, why: Option<String>) {
        if why.is_some() && self.further_ended(now, connection, Some(Loss::TimedOut)) {
            self.errands.push_back(Errand::Close(connection));
            return;
        }
        let is_silent = why.is_some();
        self.when_ready(now, connection, |ready| ready.stalled = why);
        if is_silent {
            self.replace_stalled(now, connection.subchannel);
        } else if self.is_current(connection) {
            self.end_second_dial(connection.subchannel);
        }
    }

    /// The first connection lives after all.
    fn end_second_dial(&mut self, id: SubchannelId) {
        let most = self.settings.max_connections.saturating_sub(1);
        let Some(attempt) = self.get_mut(id).and_then(|subchannel| subchannel.further.superfluous(most)) else {
            return;
        };
        self.errands.push_back(Errand::Close(ConnectionId { subchannel: id, attempt }));
        self.reschedule(id);
    }

    /// Health checks from now on; connections that exist are checked anew.
    pub(crate) fn set_health_check(&mut self, now: Time, check: Option<HealthCheck>) {
        if self.health_check == check {
            return;
        }
        self.health_check = check;
        for id in self.ids().collect::<Vec<_>>() {
            let check = self.health_check.clone();
            let Some(connection) = self.get_mut(id).and_then(|subchannel| subchannel.connection(id)) else { continue };
            self.when_ready(now, connection, |ready| ready.health = Health::new(check));
            if let Some(service) = self.watched(id) {
                self.errands.push_back(Errand::WatchHealth(connection, service));
            }
        }
    }

    /// Actively checks every address from now on, anew; `None` for no checks.
    pub(crate) fn set_checks(&mut self, now: Time, checks: Option<CheckSettings>) -> Result<(), CheckSettingsError> {
        if let Some(settings) = &checks {
            settings.validate()?;
        }
        self.checks = checks;
        for id in self.ids().collect::<Vec<_>>() {
            let Some(load) = self.load(id) else { continue };
            let checked = checks.map(|settings| Checked::new(settings, now, &load, &mut self.entropy));
            self.errands.push_back(Errand::EndChecks(id));
            self.change_service(now, id, |subchannel| subchannel.checked = checked);
        }
        Ok(())
    }

    /// The checks of an address have news.
    pub(crate) fn checked(&mut self, now: Time, id: SubchannelId, news: CheckNews) {
        let mut entropy = Entropy::new(self.entropy.next_u64());
        let mut transition = None;
        let before = self.service(id);
        self.change_service(now, id, |subchannel| {
            let Some(checked) = &mut subchannel.checked else { return };
            transition = checked.handle(now, news, &subchannel.load, &mut entropy);
        });
        if let Some(Transition { from, to, .. }) =
            transition.as_ref().filter(|transition| transition.from != transition.to)
        {
            let counted = Measurement::new(CHECK_TRANSITIONS, Value::Count(1));
            self.measure(counted.with("evenkeel.check.from", from.label()).with("evenkeel.check.to", to.label()));
        }
        let Some(address) = self.address(id).cloned() else { return };
        // What changes the endpoint's state is noted with that.
        if let Some(transition) = transition.filter(|_| self.service(id) == before) {
            self.note(now, What::Check { address, transition });
        }
    }

    /// Lets every deadline that has passed take effect.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        for id in self.deadlines.due(now) {
            self.subchannel_timeout(now, id);
        }
    }

    fn subchannel_timeout(&mut self, now: Time, id: SubchannelId) {
        self.further_timeout(now, id);
        self.check_timeout(now, id);
        let Some(subchannel) = self.get_mut(id) else { return };
        let connection = ConnectionId { subchannel: id, attempt: subchannel.attempt };
        match &mut subchannel.state {
            State::Connecting { deadline } if *deadline <= now => {
                let why = Status::unavailable(format!("{}: not connected in time", subchannel.address));
                self.disconnected(now, connection, &why, Ending::Other);
                self.errands.push_back(Errand::Close(connection));
            }
            State::TransientFailure { retry_at } if *retry_at <= now => {
                // The cause is kept: "IDLE" alone would not say why calls fail.
                subchannel.state = State::Idle;
                self.has_changed(id);
            }
            State::Ready(ready) => {
                let retried = ready.health.retry(now).then(|| ready.health.watched().unwrap_or_default().to_owned());
                self.errands.extend(retried.map(|service| Errand::WatchHealth(connection, service)));
                self.reschedule(id);
            }
            _ => {}
        }
    }

    fn check_timeout(&mut self, now: Time, id: SubchannelId) {
        let Some(subchannel) = self.get_mut(id) else { return };
        if let Some(deadline) = subchannel.checked.as_mut().and_then(|checked| checked.poll(now)) {
            let address = subchannel.address.clone();
            self.errands.push_back(Errand::Check(id, address, deadline));
            self.reschedule(id);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        debug_assert_eq!(
            self.deadlines.next(),
            self.live().filter_map(|(_, subchannel)| subchannel.next_timeout()).min(),
            "every change of a deadline is noted"
        );
        self.deadlines.next()
    }

    fn has_changed(&mut self, id: SubchannelId) {
        self.changed.push_back(id);
        self.reschedule(id);
    }

    /// Notes the deadline of `id` after whatever may have changed it.
    fn reschedule(&mut self, id: SubchannelId) {
        let at = self.get(id).and_then(Subchannel::next_timeout);
        self.deadlines.set(id, at);
    }

    /// Whose state has changed since the last call, one at a time.
    pub(crate) fn next_change(&mut self, now: Time) -> Option<SubchannelId> {
        let id = self.changed.pop_front()?;
        self.note_transition(now, id);
        Some(id)
    }

    fn note_transition(&mut self, now: Time, id: SubchannelId) {
        let Some(subchannel) = self.get_mut(id) else { return };
        let (from, to) = (subchannel.noted, subchannel.service());
        // IDLE to CONNECTING and back is the machinery of a reconnect; the reasons for it are noted.
        let routine = |state| matches!(state, Connectivity::Idle | Connectivity::Connecting);
        if from == Connectivity::TransientFailure && routine(to) {
            // It is out until an attempt succeeds: what each attempt comes to is no news.
            return;
        }
        subchannel.noted = to;
        if from != to && !(routine(from) && routine(to)) {
            let (address, reason) = (subchannel.address.clone(), subchannel.state().reason);
            self.note(now, What::Endpoint { address, from, to, reason });
        }
    }

    /// What the driver is to do next.
    pub(crate) fn next_errand(&mut self) -> Option<Errand> {
        self.errands.pop_front()
    }

    pub(crate) fn find(&self, address: &Address) -> Option<SubchannelId> {
        self.by_address.get(address).copied()
    }

    pub(crate) fn is_current(&self, connection: ConnectionId) -> bool {
        self.get(connection.subchannel).is_some_and(|subchannel| subchannel.attempt == connection.attempt)
    }

    /// Takes an address out, on top of what its connection and its health say.
    pub(crate) fn eject(&mut self, now: Time, address: &Address, why: String) {
        self.judge(now, address, |opinion| {
            opinion.ejections += 1;
            opinion.reason = why;
        });
    }

    pub(crate) fn restore(&mut self, now: Time, address: &Address) {
        self.judge(now, address, |opinion| opinion.ejections = opinion.ejections.saturating_sub(1));
    }

    /// Takes a connected address as READY whatever else is known of it.
    pub(crate) fn trust(&mut self, now: Time, address: &Address) {
        self.judge(now, address, |opinion| opinion.trusted += 1);
    }

    pub(crate) fn distrust(&mut self, now: Time, address: &Address) {
        self.judge(now, address, |opinion| opinion.trusted = opinion.trusted.saturating_sub(1));
    }

    fn judge(&mut self, now: Time, address: &Address, change: impl FnOnce(&mut Opinion)) {
        let opinion = self.opinions.entry(address.clone()).or_default();
        change(opinion);
        let opinion = opinion.clone();
        if opinion.ejections == 0 && opinion.trusted == 0 {
            self.opinions.remove(address);
        }
        let Some(id) = self.find(address) else { return };
        self.change_service(now, id, |subchannel| subchannel.opinion = opinion);
    }

    /// Has the server of `id` report its load: on the present connection and on later ones.
    pub(crate) fn watch_load(&mut self, id: SubchannelId, interval: Duration) {
        let Some(subchannel) = self.get_mut(id) else { return };
        if subchannel.load_interval.is_some_and(|present| present <= interval) {
            return;
        }
        subchannel.load_interval = Some(interval);
        if matches!(subchannel.state, State::Ready(_)) {
            let connection = subchannel.connection(id);
            self.errands.extend(connection.map(|connection| Errand::WatchLoad(connection, interval)));
        }
    }

    pub(crate) fn note(&mut self, now: Time, what: What) {
        self.errands.push_back(Errand::Note(Decision::new(now, what)));
    }

    pub(crate) fn measure(&mut self, measurement: Measurement) {
        self.errands.push_back(Errand::Measure(measurement));
    }

    pub(crate) fn check_history(&self, address: &Address) -> Option<&History> {
        let checked = self.get(self.find(address)?)?.checked.as_ref()?;
        Some(checked.check().history())
    }

    /// The state of `id`; `None` once nobody holds it.
    pub(crate) fn state(&self, id: SubchannelId) -> Option<SubchannelState> {
        self.get(id).map(Subchannel::state)
    }

    pub(crate) fn service(&self, id: SubchannelId) -> Option<(Connectivity, Time)> {
        self.get(id).map(|subchannel| (subchannel.service(), subchannel.since))
    }

    pub(crate) fn untrusted(&self, id: SubchannelId) -> Option<(Connectivity, bool)> {
        self.get(id).map(|subchannel| (subchannel.untrusted(), subchannel.is_stalled()))
    }

    pub(crate) fn load(&self, id: SubchannelId) -> Option<Arc<Load>> {
        self.get(id).map(|subchannel| Arc::clone(&subchannel.load))
    }

    pub(crate) fn address(&self, id: SubchannelId) -> Option<&Address> {
        self.get(id).map(|subchannel| &subchannel.address)
    }

    /// Every subchannel, in the order of the addresses.
    pub(crate) fn reports(&self) -> impl Iterator<Item = SubchannelReport> {
        self.live().map(|(id, subchannel)| SubchannelReport {
            id,
            address: subchannel.address.clone(),
            created: subchannel.created,
            state: subchannel.state(),
            load: Arc::clone(&subchannel.load),
        })
    }

    /// Applies a change to a READY connection and tells the holders if its state came out different.
    fn when_ready(&mut self, now: Time, connection: ConnectionId, change: impl FnOnce(&mut Ready)) {
        if !self.is_current(connection) {
            return;
        }
        self.change_service(now, connection.subchannel, |subchannel| {
            if let State::Ready(ready) = &mut subchannel.state {
                change(ready);
                subchannel.reason = ready.reason();
            }
        });
    }

    /// Applies a change that leaves the connection as it is, and tells the holders if it comes out different to them.
    fn change_service(&mut self, now: Time, id: SubchannelId, change: impl FnOnce(&mut Subchannel)) {
        let Some(subchannel) = self.get_mut(id) else { return };
        let (service, untrusted) = (subchannel.service(), subchannel.untrusted());
        change(subchannel);
        subchannel.note_service(now, service);
        // Whoever trusts an address must hear when it need not any longer.
        if subchannel.service() != service || subchannel.untrusted() != untrusted {
            self.changed.push_back(id);
        }
        self.reschedule(id);
    }

    fn watched(&self, id: SubchannelId) -> Option<String> {
        match &self.get(id)?.state {
            State::Ready(ready) => ready.health.watched().map(str::to_owned),
            _ => None,
        }
    }

    /// The subchannel of `connection`, unless another attempt has taken its place.
    fn current(&mut self, connection: ConnectionId) -> Option<&mut Subchannel> {
        self.get_mut(connection.subchannel).filter(|subchannel| subchannel.attempt == connection.attempt)
    }

    fn ids(&self) -> impl Iterator<Item = SubchannelId> {
        self.live().map(|(id, _)| id)
    }

    fn live(&self) -> impl Iterator<Item = (SubchannelId, &Subchannel)> {
        self.by_address.values().filter_map(|&id| Some((id, self.get(id)?)))
    }

    fn get(&self, id: SubchannelId) -> Option<&Subchannel> {
        self.slots.get(id.slot()).filter(|slot| slot.generation == id.generation)?.subchannel.as_ref()
    }

    fn get_mut(&mut self, id: SubchannelId) -> Option<&mut Subchannel> {
        self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation)?.subchannel.as_mut()
    }
}
