use std::collections::BTreeMap;

use evenkeel_balance::Time;

/// What is going to happen, in order: by time, and at the same time in the order in which it was planned.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    entries: BTreeMap<(Time, u64), E>,
    planned: u64,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new(), planned: 0 }
    }

    /// Plans `event` for `at`.
    pub(crate) fn plan(&mut self, at: Time, event: E) {
        self.entries.insert((at, self.planned), event);
        self.planned += 1;
    }

    /// Takes out the next event.
    pub(crate) fn next(&mut self) -> Option<(Time, E)> {
        self.entries.pop_first().map(|((at, _), event)| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_planned() {
        let mut agenda = Agenda::new();
        for (at, event) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            agenda.plan(Time::from_nanos(at), event);
        }
        let order: String = std::iter::from_fn(|| agenda.next()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }
}
