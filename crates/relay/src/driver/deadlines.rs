use std::{cmp::Reverse, collections::BinaryHeap};

use evenkeel_balance::Time;

/// When which sockets are to be seen to.
///
/// A deadline that no longer holds stays in until it comes up: there is at most one for each handshake and each close of
/// the last seconds.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Time, u32)>>);

impl Deadlines {
    pub(super) fn push(&mut self, at: Time, slot: u32) {
        self.0.push(Reverse((at, slot)));
    }

    /// The first that holds still.
    pub(super) fn next(&mut self, holds: impl Fn(Time, u32) -> bool) -> Option<Time> {
        while let Some(&Reverse((at, slot))) = self.0.peek() {
            if holds(at, slot) {
                return Some(at);
            }
            self.0.pop();
        }
        None
    }

    /// Takes out the next that has passed, whether it holds or not.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<(Time, u32)> {
        let &Reverse((at, _)) = self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_up_in_order_and_stale_ones_are_passed_over() {
        let at = Time::from_nanos;
        let mut deadlines = Deadlines::default();
        for (nanos, slot) in [(30, 3), (10, 1), (20, 2)] {
            deadlines.push(at(nanos), slot);
        }
        assert_eq!(deadlines.next(|_, slot| slot != 1), Some(at(20)));
        assert_eq!(deadlines.pop_due(at(19)), None);
        assert_eq!(deadlines.pop_due(at(20)), Some((at(20), 2)));
        assert_eq!(deadlines.next(|_, _| false), None);
        assert_eq!(deadlines.pop_due(at(99)), None);
    }
}
