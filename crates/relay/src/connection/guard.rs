//! What is cheap to send and of no use is counted here, until it is a flood.

use evenkeel_balance::Time;

use super::{
    counters::{Counters, Floods},
    settings::{Allowance, FloodLimits},
};

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    RapidResets,
    Glitches,
    EmptyData,
    Pings,
    Updates,
    Continuations,
    HeaderBomb,
    Unread,
}

impl Flood {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::RapidResets => "too many streams are reset before they are answered",
            Self::Glitches => "too many stream errors",
            Self::EmptyData => "too many DATA frames with next to nothing in them",
            Self::Pings => "too many PING or SETTINGS frames",
            Self::Updates => "too many WINDOW_UPDATE or PRIORITY frames",
            Self::Continuations => "a header block in too many pieces",
            Self::HeaderBomb => "a header block that grows far beyond what is allowed",
            Self::Unread => "the peer does not read what it asked for",
        }
    }

    pub(super) fn count(self, floods: &mut Floods) {
        *match self {
            Self::RapidResets => &mut floods.rapid_resets,
            Self::Glitches => &mut floods.glitches,
            Self::EmptyData => &mut floods.empty_data,
            Self::Pings => &mut floods.pings,
            Self::Updates => &mut floods.updates,
            Self::Continuations => &mut floods.continuations,
            Self::HeaderBomb => &mut floods.header_bombs,
            Self::Unread => &mut floods.unread,
        } += 1;
    }
}

/// What a peer has used up of its allowances.
#[derive(Debug)]
pub(super) struct Guard {
    rapid_resets: Bucket,
    glitches: Bucket,
    empty_data: Bucket,
    pings: Bucket,
    updates: Bucket,
}

/// One allowance: it leaks with time, and is bailed out by useful work.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    spent: u32,
    /// Up to when time has been taken into account.
    at: Time,
}

impl Bucket {
    const fn new(now: Time) -> Self {
        Self { spent: 0, at: now }
    }

    #[inline]
    fn charge(&mut self, now: Time, allowance: Allowance) -> bool {
        self.spent = self.spent.saturating_add(1);
        self.spent <= allowance.burst || self.leak(now, allowance)
    }

    /// Time is looked at only when the burst is used up.
    #[cold]
    fn leak(&mut self, now: Time, allowance: Allowance) -> bool {
        let forgiven = now.since(self.at).as_millis() * u128::from(allowance.per_second) / 1000;
        if forgiven > 0 {
            // All but what is being charged.
            self.spent = (self.spent - 1).saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)) + 1;
            self.at = now;
        }
        self.spent <= allowance.burst
    }

    #[inline]
    fn earn(&mut self, back: u32) {
        self.spent = self.spent.saturating_sub(back);
    }
}

impl Guard {
    pub(super) const fn new(now: Time) -> Self {
        let full = Bucket::new(now);
        Self { rapid_resets: full, glitches: full, empty_data: full, pings: full, updates: full }
    }

    /// The client has reset a stream that was not answered.
    pub(super) fn rapid_reset(
        &mut self,
        now: Time,
        limits: &FloodLimits,
        counters: &mut Counters,
    ) -> Result<(), Flood> {
        counters.rapid_resets += 1;
        self.rapid_resets.charge(now, limits.rapid_resets).then_some(()).ok_or(Flood::RapidResets)
    }

    /// The peer has made a mistake that costs it a stream, or none.
    pub(super) fn glitch(&mut self, now: Time, limits: &FloodLimits, counters: &mut Counters) -> Result<(), Flood> {
        counters.glitches += 1;
        self.glitches.charge(now, limits.glitches).then_some(()).ok_or(Flood::Glitches)
    }

    /// A DATA frame has come with this much in it that ends nothing.
    #[inline]
    pub(super) fn data(
        &mut self,
        now: Time,
        length: u32,
        limits: &FloodLimits,
        counters: &mut Counters,
    ) -> Result<(), Flood> {
        if length > 1 {
            self.worked(0);
            return Ok(());
        }
        counters.empty_data += 1;
        self.empty_data.charge(now, limits.empty_data).then_some(()).ok_or(Flood::EmptyData)
    }

    /// A PING or SETTINGS frame has come.
    pub(super) fn ping(&mut self, now: Time, limits: &FloodLimits) -> Result<(), Flood> {
        self.pings.charge(now, limits.pings).then_some(()).ok_or(Flood::Pings)
    }

    /// A `WINDOW_UPDATE`, PRIORITY or unknown frame has come.
    #[inline]
    pub(super) fn update(&mut self, now: Time, limits: &FloodLimits, counters: &mut Counters) -> Result<(), Flood> {
        counters.updates += 1;
        self.updates.charge(now, limits.updates).then_some(()).ok_or(Flood::Updates)
    }

    /// A head, or DATA with something in it, has come or gone, with `sent` bytes of payload.
    #[inline]
    pub(super) fn worked(&mut self, sent: usize) {
        self.empty_data.earn(1);
        self.pings.earn(1);
        self.updates.earn(20 + u32::try_from(sent / 256).unwrap_or(u32::MAX));
    }

    /// A stream of the client's has been answered.
    #[inline]
    pub(super) fn answered(&mut self) {
        self.rapid_resets.earn(2);
        self.glitches.earn(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_allowance_is_a_burst_and_a_rate() {
        let allowance = Allowance { burst: 3, per_second: 10 };
        let mut now = Time::from_nanos(1 << 40);
        let mut bucket = Bucket::new(now);
        assert!((0..3).all(|_| bucket.charge(now, allowance)));
        for _ in 0..1000 {
            now += Duration::from_millis(100);
            assert!(bucket.charge(now, allowance), "ten a second are forgiven for good");
        }
        assert!(!bucket.charge(now, allowance));
        now += Duration::from_secs(60);
        assert!((0..3).all(|_| bucket.charge(now, allowance)));
        assert!(!bucket.charge(now, allowance), "a long rest is worth a burst, not more");
    }

    #[test]
    fn work_gives_back() {
        let allowance = Allowance { burst: 3, per_second: 0 };
        let mut bucket = Bucket::new(Time::ZERO);
        for _ in 0..1000 {
            assert!(bucket.charge(Time::ZERO, allowance));
            bucket.earn(1);
        }
    }
}
