use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use evenkeel_balance::Time;

use super::{
    Level, RunId,
    action::Outbox,
    replica::{Replica, Role},
    service::ServiceState,
    state::State,
};

/// A rolling restart: replicas are stopped and started one after the other, the next only when the one before serves.
///
/// With `surge`, one more replica is started first and stopped last. Replicas that do not serve anyway come first, since
/// nobody misses them. If one does not come up, the others are left as they are, and go on with what they were started
/// by.
#[derive(Debug)]
pub(super) struct Roll {
    why: String,
    pending: BTreeSet<u32>,
    /// Those restarting now, with the start that they had.
    current: BTreeMap<u32, Option<RunId>>,
    surge: Option<u32>,
}

impl Roll {
    /// How far it is, for people.
    pub(super) fn progress(&self) -> String {
        let numbers = |numbers: Vec<&u32>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let current = numbers(self.current.keys().collect());
        match (current.as_str(), self.pending.len()) {
            ("", left) => format!("rolling restart: {left} to go"),
            (_, left) => format!("rolling restart: {current} now, {left} to go"),
        }
    }

    /// An additional replica whose number is below `slots` has become one of the lasting ones.
    pub(super) fn adopt_surge_below(&mut self, slots: u32) {
        self.surge = self.surge.filter(|surge| *surge >= slots);
    }
}

impl ServiceState {
    /// Restarts the replicas chosen, in turn. What is asked for while others are being restarted comes after them.
    pub(super) fn begin_roll(&mut self, now: Time, which: impl Fn(&Replica) -> bool, why: &str, out: &mut Outbox) {
        let lasting = self.replicas.range(..self.settings.slots());
        let chosen = lasting.filter(|(_, replica)| replica.role != Role::Surge && which(replica));
        let numbers: BTreeSet<u32> = chosen.map(|(number, _)| *number).collect();
        if numbers.is_empty() {
            return;
        }
        self.last_roll = None;
        out.note(Level::Info, &self.name, format!("rolling restart of {} begins: {why}", replicas(numbers.len())));
        if let Some(roll) = &mut self.roll {
            roll.pending.extend(numbers);
            return self.catch_up(now, out);
        }
        let after_all = self.replicas.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        let surge = (self.settings.surges() && self.is_serving()).then_some(after_all);
        if let Some(surge) = surge {
            self.add(now, surge, Role::Surge);
        }
        self.roll = Some(Roll { why: why.to_owned(), pending: numbers, current: BTreeMap::new(), surge });
    }

    /// Goes on with a rolling restart as far as it can.
    pub(super) fn step_roll(&mut self, now: Time, out: &mut Outbox) {
        let Some(mut roll) = self.roll.take() else { return };
        if let Some(failed) = self.settle(&mut roll) {
            let left = replicas(roll.pending.len());
            let text = format!("rolling restart aborted: {failed}; {left} left as before");
            out.note(Level::Error, &self.name, text.clone());
            self.last_roll = Some(text);
            return self.end_surge(now, &roll, out);
        }
        if roll.surge.and_then(|surge| self.replicas.get(&surge)).is_none_or(Replica::is_serving) {
            while let Some(number) = self.next_of(&roll) {
                self.restart_one(now, &mut roll, number, out);
            }
        }
        if roll.pending.is_empty() && roll.current.is_empty() {
            out.note(Level::Info, &self.name, "rolling restart is done: all of it serves");
            return self.end_surge(now, &roll, out);
        }
        self.roll = Some(roll);
    }

    /// Leaves a rolling restart where it is.
    pub(super) fn end_roll(&mut self, now: Time, why: &str, out: &mut Outbox) {
        if let Some(roll) = self.roll.take() {
            self.last_roll = Some(format!("rolling restart broken off: {why}"));
            self.end_surge(now, &roll, out);
        }
    }

    /// Drops what is done with; says which replica failed.
    fn settle(&self, roll: &mut Roll) -> Option<String> {
        roll.pending.retain(|number| self.replicas.contains_key(number));
        let surge = roll.surge.and_then(|surge| self.replicas.get(&surge));
        if let Some(failed) = surge.and_then(failure) {
            return Some(failed);
        }
        let mut failed = None;
        roll.current.retain(|number, before| {
            let Some(replica) = self.replicas.get(number) else { return false };
            failed = failed.take().or_else(|| failure(replica));
            let is_back = replica.is_serving() && replica.run() != *before;
            !is_back && replica.state() != State::Stopped
        });
        failed
    }

    fn next_of(&self, roll: &Roll) -> Option<u32> {
        let max = self.settings.max_unavailable as usize;
        if roll.current.len() >= max {
            return None;
        }
        let free = || roll.pending.iter().copied().filter(|number| !roll.current.contains_key(number));
        let serves = |number: &u32| self.replicas.get(number).is_some_and(Replica::is_serving);
        let (serving, all) = self.counts();
        free().find(|number| !serves(number)).or_else(|| free().next().filter(|_| all - serving < max))
    }

    /// Restarts by the present configuration what is being started by an earlier one, which may be why it does not come
    /// up.
    fn catch_up(&mut self, now: Time, out: &mut Outbox) {
        let Self { roll: Some(roll), replicas, settings, .. } = self else { return };
        for (number, replica) in replicas {
            let is_current = roll.current.contains_key(number) || roll.surge == Some(*number);
            if is_current && !replica.is_serving() && !Arc::ptr_eq(&replica.service, settings) {
                roll.pending.remove(number);
                replica.service = Arc::clone(settings);
                replica.restart(now, "its configuration has changed again", out);
            }
        }
    }

    fn restart_one(&mut self, now: Time, roll: &mut Roll, number: u32, out: &mut Outbox) {
        roll.pending.remove(&number);
        if let Some(replica) = self.replicas.get_mut(&number) {
            roll.current.insert(number, replica.run());
            replica.service = Arc::clone(&self.settings);
            replica.restart(now, &format!("restarts: {}", roll.why), out);
        }
    }

    fn end_surge(&mut self, now: Time, roll: &Roll, out: &mut Outbox) {
        if let Some(surge) = roll.surge {
            self.dismiss(now, surge, "the rolling restart is over", out);
        }
    }
}

/// Why a replica that was restarted does not serve, once that is clear.
fn failure(replica: &Replica) -> Option<String> {
    let has_failed = matches!(replica.state(), State::Backoff { .. } | State::CrashLooping { .. }) || replica.is_over();
    has_failed.then(|| format!("{} did not come up: {}", replica.name, replica.why()))
}

fn replicas(count: usize) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") }
}
