use std::collections::BTreeSet;

use super::{
    FailoverPolicy, Mode, Shares,
    config::WhenAllOut,
    group::{Phase, Turn, percent},
    shares::WHOLE,
};
use crate::{Measurement, Value, policy::Context};

/// What the operator is told.
impl FailoverPolicy {
    pub(super) fn tell(&self, before: &Shares, was: Mode, turns: &[(u32, Turn)], ctx: &mut Context<'_>) {
        let is_first = before.values().all(|&share| share == 0) && !was.all_out;
        if self.mode.switched_to != was.switched_to {
            return say("switch", &self.switch(), ctx);
        }
        if self.mode.all_out != was.all_out {
            return say(if self.mode.all_out { "all_out" } else { "recovery" }, &self.outage(ctx), ctx);
        }
        if self.mode.panics != was.panics {
            return say(if self.mode.panics { "panic" } else { "panic_over" }, &self.panic(), ctx);
        }
        if is_first || self.mode.all_out || self.mode.panics {
            return;
        }
        for (rank, turn) in turns {
            say(turn.name(), &self.turned(*rank, *turn), ctx);
        }
        let moved = self.moved(before);
        let eases = self.groups.values().any(|group| matches!(group.phase, Phase::Easing { .. }));
        match moved {
            Moved::Back if turns.is_empty() && !eases => {
                say("failback", &format!("calls return: {}", self.summary()), ctx);
            }
            Moved::Away => {
                let why = self.ailments(ctx);
                say("failover", &format!("calls move on: {}{why}", self.summary()), ctx);
            }
            Moved::Back | Moved::No => {}
        }
    }

    /// Whether calls have moved to groups further behind, or back.
    fn moved(&self, before: &Shares) -> Moved {
        let (mut was, mut is, mut moved) = (0_u32, 0_u32, Moved::No);
        let ranks: BTreeSet<_> = before.keys().chain(self.shares.keys()).collect();
        for rank in ranks {
            was += before.get(rank).copied().unwrap_or(0);
            is += self.shares.get(rank).copied().unwrap_or(0);
            if percent(is) < percent(was) {
                return Moved::Away;
            }
            if percent(is) > percent(was) {
                moved = Moved::Back;
            }
        }
        moved
    }

    pub(super) fn switch(&self) -> String {
        let summary = self.summary();
        match self.mode.switched_to {
            None => format!("the switch by hand is over: {summary}"),
            Some(rank) if self.groups.contains_key(&rank) => format!("switched to group {rank} by hand: {summary}"),
            Some(rank) => {
                format!("switched to group {rank} by hand, which has no endpoint, so nothing changes: {summary}")
            }
        }
    }

    fn outage(&self, ctx: &Context<'_>) -> String {
        if !self.mode.all_out {
            return format!("no longer are all endpoints out: {}", self.summary());
        }
        let consequence = match self.config.when_all_out {
            WhenAllOut::Panic => "calls go to all that are connected",
            WhenAllOut::FailFast => "calls fail at once",
            WhenAllOut::Wait => "calls wait",
        };
        format!("all endpoints are out, and {consequence}{}", self.ailments(ctx))
    }

    pub(super) fn panic(&self) -> String {
        let (well, total) = self
            .groups
            .values()
            .fold((0, 0), |(well, total), group| (well + group.count.well, total + group.count.total));
        if self.mode.panics {
            format!("panic: {well} of {total} endpoints are ready; calls go to all that are connected")
        } else {
            format!("the panic is over: {}", self.summary())
        }
    }

    fn turned(&self, rank: u32, turn: Turn) -> String {
        let (delay, ramp) = (self.config.failback_delay, self.config.failback_ramp);
        match turn {
            Turn::IsHeld => format!("group {rank} is well again and gets calls in {delay:?}: {}", self.summary()),
            Turn::BeginsToEase => format!("calls return to group {rank} over {ramp:?}: {}", self.summary()),
            Turn::ServesWhole => format!("calls have returned to group {rank}: {}", self.summary()),
            Turn::ServesEarly => {
                format!("group {rank} serves at once, as the others cannot take all calls: {}", self.summary())
            }
        }
    }

    /// Each group's condition and share.
    fn summary(&self) -> String {
        let groups = self.groups.iter().map(|(rank, group)| format!("group {rank}: {}", group.describe()));
        groups.collect::<Vec<_>>().join("; ")
    }

    /// What is wrong with one endpoint of each group in which any is out.
    fn ailments(&self, ctx: &Context<'_>) -> String {
        let ailments = self.groups.values().filter_map(|group| group.ailment(ctx));
        ailments.fold(String::new(), |told, ailment| format!("{told}; {ailment}"))
    }
}

/// What became of calls at a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    No,
    Away,
    Back,
}

impl Turn {
    /// As the metric's label has it.
    fn name(self) -> &'static str {
        match self {
            Self::IsHeld => "failback_held",
            Self::BeginsToEase => "failback_begun",
            Self::ServesWhole => "failback_whole",
            Self::ServesEarly => "failback_early",
        }
    }
}

fn say(step: &'static str, what: &str, ctx: &mut Context<'_>) {
    ctx.note(format!("failover: {what}"));
    ctx.measure(Measurement::new("evenkeel.failover.steps", Value::Count(1)).with("evenkeel.failover.step", step));
}

pub(super) fn report_share(rank: u32, share: u32, ctx: &mut Context<'_>) {
    let part = Value::Level(f64::from(share) / f64::from(WHOLE));
    ctx.measure(Measurement::new("evenkeel.failover.share", part).with("evenkeel.failover.group", rank.to_string()));
}
