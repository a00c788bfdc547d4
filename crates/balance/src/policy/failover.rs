mod config;
mod group;
mod shares;
mod told;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Child, Context, Event, Explanation, Policies, Policy, PolicyFactory, Update, child::Resolution, hierarchy,
    weighted_target::Split,
};
use crate::{Address, ConfigError, Connectivity, Endpoint, NoChoice, Picker, Status, Time, time::earliest};
use group::{Group, Phase, Standing, Turn};
use shares::{WHOLE, in_proportion, share_out};
use told::report_share;

pub use config::{FailoverConfig, Standby, WhenAllOut};

/// How long a cold group that is not needed is kept, with its connections: as long as a level of `priority`.
const RETENTION: Duration = Duration::from_secs(15 * 60);

/// `failover`: calls go to the first group of endpoints while that is healthy enough, spill over to its standby groups as
/// it falters, and return gracefully.
///
/// A group is the endpoints of one rank ([`Endpoint::priority`]); the lowest number is the first. What a group can take
/// is the part of its endpoints that are ready, times `overprovisioningFactor`, at most all. Each group takes of what the
/// groups before it have left over; where all together cannot take everything, they share in proportion to what they can.
/// This is how Envoy spreads load over priority levels.
///
/// - A group that was wholly out gets calls again when it has been well for `failbackDelay`, and its share then grows over
///   `failbackRamp`. It does not wait where the other groups cannot take all calls. Running calls stay where they are.
/// - With too few endpoints well in all groups together, calls go to all that are connected (`panicThreshold`); with none
///   well, `whenAllOut` says what happens.
/// - An operator may send all calls to one group ([`Input::SwitchTo`](crate::Input::SwitchTo)).
///
/// `priority` (gRFC A56) is gRPC's policy for the same purpose: there, a level takes all calls or none.
#[derive(Clone, Copy, Debug)]
pub struct Failover;

impl PolicyFactory for Failover {
    const NAME: &'static str = "failover";
    type Config = FailoverConfig;
    type Policy = FailoverPolicy;

    fn build(&self, config: FailoverConfig, policies: &Policies) -> Result<FailoverPolicy, ConfigError> {
        config.check()?;
        policies.check(&config.child_policy).map_err(|error| error.under("childPolicy"))?;
        Ok(FailoverPolicy {
            config,
            policies: policies.clone(),
            resolution: None,
            groups: BTreeMap::new(),
            shares: Shares::new(),
            mode: Mode::default(),
            wake_at: None,
            unweighed: false,
            changed: true,
        })
    }

    fn reconfigure(
        &self,
        policy: &mut FailoverPolicy,
        config: FailoverConfig,
        policies: &Policies,
        ctx: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        config.check()?;
        policies.check(&config.child_policy).map_err(|error| error.under("childPolicy"))?;
        for child in policy.children() {
            child.configure(&config.child_policy, policies, ctx)?;
        }
        policy.config = config;
        policy.policies = policies.clone();
        policy.unweighed = true;
        Ok(())
    }
}

/// A live `failover`.
#[derive(Debug)]
pub struct FailoverPolicy {
    config: FailoverConfig,
    policies: Policies,
    resolution: Option<Resolution>,
    /// By rank.
    groups: BTreeMap<u32, Group>,
    /// As decided last.
    shares: Shares,
    mode: Mode,
    /// When something changes by itself.
    wake_at: Option<Time>,
    /// Whether anything has happened since the shares were decided.
    unweighed: bool,
    changed: bool,
}

/// Parts of all calls by rank, of [`WHOLE`].
type Shares = BTreeMap<u32, u32>;

/// What holds for all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    /// Where an operator sends all calls, listed or not.
    switched_to: Option<u32>,
    /// Whether the addresses of all groups are trusted.
    panics: bool,
    /// Whether no endpoint that calls could go to is well.
    all_out: bool,
}

/// What a decision rests on.
#[derive(Debug, Default)]
struct Weighed {
    /// The groups that calls may go to, and their shares.
    shares: Shares,
    /// Whether they cannot take all calls.
    short: bool,
    turns: Vec<(u32, Turn)>,
}

impl FailoverPolicy {
    fn children(&mut self) -> impl Iterator<Item = &mut Child> {
        self.groups.values_mut().filter_map(|group| group.child.as_mut())
    }

    fn list(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) {
        let ranks = hierarchy::Shares::by_rank(endpoints);
        let known: BTreeMap<Vec<Address>, Standing> =
            self.groups.values().flat_map(|group| group.members.clone()).collect();
        let trusted: Vec<Address> = if self.mode.panics { self.addresses() } else { Vec::new() };
        self.groups.retain(|rank, group| {
            let is_listed = ranks.contains_key(rank);
            if !is_listed {
                group.stop(ctx);
            }
            is_listed
        });
        for (rank, share) in ranks {
            self.groups.entry(rank).or_insert_with(Group::new).list(share, &known, ctx);
        }
        if self.mode.panics {
            // In this order, so that those that stay are trusted all the time.
            for address in self.addresses() {
                ctx.trust(&address);
            }
            for address in &trusted {
                ctx.distrust(address);
            }
        }
    }

    fn addresses(&self) -> Vec<Address> {
        self.groups.values().flat_map(|group| group.members.keys().flatten().cloned()).collect()
    }

    /// Decides anew where calls go, and tells the operator what has changed.
    fn weigh(&mut self, ctx: &mut Context<'_>) {
        self.unweighed = false;
        if self.groups.is_empty() {
            self.wake_at = None;
            return self.settle(&Weighed::default(), Mode { switched_to: ctx.switched_to(), ..Mode::default() }, ctx);
        }
        self.count(ctx);
        let mut weighed = self.spread(ctx);
        while self.start_needed(&weighed, ctx) {
            self.count(ctx);
            weighed = self.spread(ctx);
        }
        let mode = self.judge(&weighed, ctx);
        if mode.panics || mode.all_out {
            weighed.shares = self.shares_by_use(&weighed);
        }
        self.settle(&weighed, mode, ctx);
        self.stop_spare(ctx);
        let turns = self.groups.values().map(|group| {
            let spare = group.spare_since.filter(|_| group.child.is_some()).map(|since| since + RETENTION);
            let spare = spare.filter(|_| self.config.standby == Standby::Cold);
            earliest(group.next_turn(&self.config, ctx.now()), spare)
        });
        self.wake_at = turns.fold(None, earliest);
    }

    fn count(&mut self, ctx: &Context<'_>) {
        let timeout = self.config.failover_timeout;
        self.groups.values_mut().for_each(|group| group.count(timeout, ctx));
    }

    /// The group that an operator sends all calls to, if it is listed.
    fn forced(&self, ctx: &Context<'_>) -> Option<u32> {
        ctx.switched_to().filter(|rank| self.groups.contains_key(rank))
    }

    /// Moves each group on to the phase that is due, and splits calls over them.
    fn spread(&mut self, ctx: &Context<'_>) -> Weighed {
        let (now, forced, config) = (ctx.now(), self.forced(ctx), &self.config);
        let (mut turns, mut offers, mut taken) = (Vec::new(), Vec::new(), 0);
        for (&rank, group) in &mut self.groups {
            let is_needed = forced.is_none() && taken < WHOLE;
            turns.extend(group.turn(is_needed, config, now).map(|turn| (rank, turn)));
            let mut offer = group.offer(config, now);
            let is_spare = if let Some(forced) = forced { forced != rank } else { !is_needed };
            group.spare_since = is_spare.then(|| group.spare_since.unwrap_or(now));
            if forced == Some(rank) {
                offer.eased = offer.able;
            }
            if forced.is_none_or(|forced| forced == rank) {
                taken += offer.eased.min(WHOLE - taken);
                offers.push((rank, offer));
            }
        }
        let shares = share_out(&offers.iter().map(|(_, offer)| *offer).collect::<Vec<_>>());
        let able: u64 = offers.iter().map(|(_, offer)| u64::from(offer.able)).sum();
        for (&(rank, offer), share) in offers.iter().zip(&shares) {
            let group = self.groups.get_mut(&rank).expect("it has made the offer");
            if *share > offer.eased && matches!(group.phase, Phase::Held { .. } | Phase::Easing { .. }) {
                turns.retain(|(turned, _)| *turned != rank);
                turns.push((rank, group.release()));
            }
        }
        let ranks = offers.iter().map(|(rank, _)| *rank);
        Weighed { shares: ranks.zip(shares).collect(), short: able < u64::from(WHOLE), turns }
    }

    /// Connects groups that are to be and are not, and says whether there were any.
    fn start_needed(&mut self, weighed: &Weighed, ctx: &mut Context<'_>) -> bool {
        let mut any = false;
        for (rank, group) in &mut self.groups {
            let is_used = weighed.shares.get(rank).is_some_and(|&share| share > 0);
            if group.child.is_some() || !(is_used || self.config.standby == Standby::Hot) {
                continue;
            }
            let child = Child::new(&self.config.child_policy, &self.policies).expect("the config has been checked");
            group.start(child, ctx);
            any = true;
        }
        any
    }

    /// Disconnects cold groups that have not been needed for long.
    fn stop_spare(&mut self, ctx: &mut Context<'_>) {
        if self.config.standby == Standby::Hot {
            return;
        }
        let now = ctx.now();
        for group in self.groups.values_mut() {
            if group.child.is_some() && group.spare_since.is_some_and(|since| since + RETENTION <= now) {
                group.stop(ctx);
            }
        }
    }

    /// Whether to panic, and whether anything is well.
    fn judge(&self, weighed: &Weighed, ctx: &Context<'_>) -> Mode {
        let counts = || weighed.shares.keys().map(|rank| self.groups[rank].count);
        let total: usize = counts().map(|count| count.total).sum();
        let not_out: usize = counts().map(|count| count.not_out).sum();
        let all_out = not_out == 0;
        let panics = if all_out {
            self.config.when_all_out == WhenAllOut::Panic
        } else {
            weighed.short && not_out * 100 < total * self.config.panic_threshold as usize
        };
        Mode { switched_to: ctx.switched_to(), panics, all_out }
    }

    /// Shares in proportion to the endpoints that take calls, well or not.
    fn shares_by_use(&self, weighed: &Weighed) -> Shares {
        let usable = |rank: &u32| u32::try_from(self.groups[rank].count.usable).unwrap_or(u32::MAX);
        let shares = in_proportion(&weighed.shares.keys().map(usable).collect::<Vec<_>>());
        weighed.shares.keys().copied().zip(shares).collect()
    }

    /// Puts a decision in force, and says so.
    fn settle(&mut self, weighed: &Weighed, mode: Mode, ctx: &mut Context<'_>) {
        for (rank, group) in &mut self.groups {
            group.share = weighed.shares.get(rank).copied().unwrap_or(0);
        }
        let shares = self.groups.iter().map(|(&rank, group)| (rank, group.share)).collect();
        let before = std::mem::replace(&mut self.shares, shares);
        let gone = before.keys().filter(|rank| !self.shares.contains_key(rank)).map(|&rank| (rank, 0));
        let moved = self
            .shares
            .iter()
            .map(|(&rank, &share)| (rank, share))
            .filter(|(rank, share)| before.get(rank) != Some(share));
        for (rank, share) in gone.chain(moved) {
            report_share(rank, share, ctx);
        }
        let was = self.mode;
        self.set_panic(mode.panics, ctx);
        // While all are out, calls are told the reasons, which may be others now.
        self.changed |= before != self.shares || mode != was || mode.all_out;
        self.mode = mode;
        if !self.groups.is_empty() {
            self.tell(&before, was, &weighed.turns, ctx);
        }
    }

    fn set_panic(&mut self, panics: bool, ctx: &mut Context<'_>) {
        if std::mem::replace(&mut self.mode.panics, panics) == panics {
            return;
        }
        for address in self.addresses() {
            if panics { ctx.trust(&address) } else { ctx.distrust(&address) }
        }
        self.unweighed = true;
    }
}

/// What is published.
impl FailoverPolicy {
    fn update(&self, ctx: &Context<'_>) -> Update {
        if self.groups.is_empty() {
            return self.vacant();
        }
        let used = || self.groups.values().filter(|group| group.share > 0);
        let ready = used().filter(|group| group.is(Connectivity::Ready));
        let ready = ready.filter_map(|group| Some((group.share, Arc::clone(&group.child.as_ref()?.last()?.picker))));
        let ready: Vec<_> = ready.collect();
        match (&*ready, used().next()) {
            ([(_, picker)], _) => Update { connectivity: Connectivity::Ready, picker: Arc::clone(picker) },
            ([_, _, ..], _) => Update { connectivity: Connectivity::Ready, picker: Arc::new(Split::new(ready)) },
            // Its own picker, as some policies connect what calls ask for.
            ([], Some(group)) => waiting(group.child.as_ref().and_then(Child::last)),
            ([], None) => self.outed(ctx),
        }
    }

    /// While no endpoint takes calls.
    fn outed(&self, ctx: &Context<'_>) -> Update {
        let children = self.groups.values().filter_map(|group| group.child.as_ref());
        let reconnects = Connectivity::aggregate(children.map(Child::connectivity)) != Connectivity::TransientFailure;
        match self.config.when_all_out {
            WhenAllOut::Wait => waiting(None),
            WhenAllOut::Panic if reconnects => waiting(None),
            WhenAllOut::Panic | WhenAllOut::FailFast => failing(self.failure(ctx)),
        }
    }

    fn failure(&self, ctx: &Context<'_>) -> Status {
        let groups = self.groups.iter().map(|(rank, group)| {
            let ailment = group.ailment(ctx).map(|ailment| format!(", {ailment}")).unwrap_or_default();
            format!("group {rank}: {} of {} endpoints ready{ailment}", group.count.well, group.count.total)
        });
        let switched = self.mode.switched_to.map(|rank| format!(" (switched to group {rank} by hand)"));
        let groups = groups.collect::<Vec<_>>().join("; ");
        Status::unavailable(format!("all endpoints are out{}: {groups}", switched.unwrap_or_default()))
    }

    /// While there is no group.
    fn vacant(&self) -> Update {
        match &self.resolution {
            None => waiting(None),
            Some(Resolution::Failed(status)) => failing(status.clone()),
            Some(Resolution::Endpoints(_)) => failing(Status::unavailable("the resolver returned no endpoints")),
        }
    }
}

fn waiting(update: Option<&Update>) -> Update {
    let waits = update.filter(|update| update.connectivity == Connectivity::Connecting);
    let picker =
        waits.map_or_else(|| Arc::new(NoChoice::Queue) as Arc<dyn Picker>, |update| Arc::clone(&update.picker));
    Update { connectivity: Connectivity::Connecting, picker }
}

fn failing(status: Status) -> Update {
    Update { connectivity: Connectivity::TransientFailure, picker: Arc::new(NoChoice::Fail(status)) }
}

impl Policy for FailoverPolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        self.unweighed |= !matches!(event, Event::Load(..) | Event::ExitIdle);
        let Some(resolution) = Resolution::of(event) else {
            return self.children().for_each(|child| child.handle(event, ctx));
        };
        self.changed = true;
        if let Resolution::Endpoints(endpoints) = &resolution {
            self.list(endpoints, ctx);
        }
        self.resolution = Some(resolution);
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        let mut spoke = false;
        for child in self.children() {
            spoke |= child.poll_awake(ctx);
        }
        if spoke || self.unweighed {
            self.changed |= spoke;
            self.weigh(ctx);
        }
        std::mem::take(&mut self.changed).then(|| self.update(ctx))
    }

    fn next_timeout(&self) -> Option<Time> {
        let children = self.groups.values().filter_map(|group| group.child.as_ref()?.next_timeout());
        earliest(children.min(), self.wake_at)
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.set_panic(false, ctx);
        self.groups.values_mut().for_each(|group| group.stop(ctx));
        self.groups.clear();
        (self.resolution, self.wake_at) = (None, None);
    }

    fn explain(&self) -> Explanation {
        let mut told = Explanation::default();
        if self.mode.switched_to.is_some() {
            told = told.note(self.switch());
        }
        if self.mode.all_out || self.mode.panics {
            told = told.note(self.panic());
        }
        let groups = self.groups.iter();
        groups.fold(told, |told, (rank, group)| told.child(format!("group {rank}"), group.explain(&self.config)))
    }
}
