//! Flow control (RFC 9113, 5.2): windows of streams and of the connection, in both directions.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "each is bounded by 2^31-1 right where it is cast"
)]

use crate::frame::MAX_WINDOW;

/// What we may still send, in bytes. Below zero after the peer has lowered `SETTINGS_INITIAL_WINDOW_SIZE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i32);

/// A window would exceed 2³¹ − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl SendWindow {
    pub(super) fn new(size: u32) -> Self {
        Self(size.min(MAX_WINDOW as u32) as i32)
    }

    /// How many bytes may go out now.
    #[inline]
    pub(super) fn room(self) -> usize {
        self.0.max(0) as usize
    }

    /// `bytes` go out; there must be room for them.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room());
        self.0 -= bytes as i32;
    }

    /// The peer gives, or by a new initial size takes, `delta` bytes.
    #[inline]
    pub(super) fn shift(&mut self, delta: i64) -> Result<(), Overflow> {
        let size = i64::from(self.0) + delta;
        if size > MAX_WINDOW {
            return Err(Overflow);
        }
        // Taking can reach -(2^31-1) at the least: from zero by the whole of an initial size.
        self.0 = i32::try_from(size).unwrap_or(i32::MIN);
        Ok(())
    }
}

/// What the peer may still send, and what we have not yet given back of what it sent, in bytes.
///
/// ```text
///   size = left (the peer may send it) + held (received, not released) + owed (released, not yet given back)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    left: i32,
    size: u32,
    owed: u32,
}

/// The peer has sent more than its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

impl ReceiveWindow {
    /// `size` is at most 2³¹ − 1.
    pub(super) fn new(size: u32) -> Self {
        let size = size.min(MAX_WINDOW as u32);
        Self { left: size as i32, size, owed: 0 }
    }

    /// `bytes` have come: the whole payload of a frame, with its padding.
    #[inline]
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Exceeded> {
        let left = i64::from(self.left) - i64::from(bytes);
        if left < 0 {
            return Err(Exceeded);
        }
        self.left = left as i32;
        Ok(())
    }

    /// `bytes` of what came need no place any more. Returns by how much to enlarge the peer's window now, if at all:
    /// at half a window, so that few updates are sent.
    ///
    /// Where nothing is held back at that moment, the window doubles up to `most`: whoever reads keeps up, so the
    /// window may be what holds the sender.
    #[inline]
    pub(super) fn release(&mut self, bytes: usize, most: u32) -> Option<u32> {
        let held = self.held();
        self.owed += held.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.owed == 0 || self.owed < self.size / 2 {
            return None;
        }
        let mut grant = std::mem::take(&mut self.owed);
        if held as usize <= bytes && self.size < most {
            let doubled = self.size.saturating_mul(2).min(most).min(MAX_WINDOW as u32);
            grant += doubled - self.size;
            self.size = doubled;
        }
        self.left = (i64::from(self.left) + i64::from(grant)).min(MAX_WINDOW) as i32;
        Some(grant)
    }

    /// The peer has learned that windows start with `size` rather than with what it assumed.
    pub(super) fn shrink(&mut self, by: u32) {
        self.left = self.left.saturating_sub_unsigned(by);
        self.size = self.size.saturating_sub(by);
    }

    /// What came and is not released.
    #[inline]
    fn held(self) -> u32 {
        let held = i64::from(self.size) - i64::from(self.left) - i64::from(self.owed);
        held.max(0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_goes_below_zero_and_never_above_its_bound() {
        let mut window = SendWindow::new(10);
        window.take(10);
        window.shift(-100).unwrap();
        assert_eq!((window, window.room()), (SendWindow(-100), 0));
        window.shift(MAX_WINDOW).unwrap();
        assert_eq!(window.shift(101), Err(Overflow));
        assert_eq!(window.shift(100), Ok(()));
    }

    #[test]
    fn a_receive_window_is_given_back_by_halves() {
        let mut window = ReceiveWindow::new(100);
        window.receive(60).unwrap();
        assert_eq!(window.release(49, 100), None);
        assert_eq!(window.release(1, 100), Some(50));
        window.receive(90).unwrap();
        assert_eq!(window.receive(1), Err(Exceeded));
    }

    #[test]
    fn a_window_doubles_only_while_nothing_is_held_back() {
        let mut window = ReceiveWindow::new(100);
        window.receive(80).unwrap();
        assert_eq!(window.release(70, 1000), Some(70), "ten bytes are held back");
        assert_eq!(window.release(10, 1000), None);
        window.receive(60).unwrap();
        assert_eq!(window.release(60, 1000), Some(70 + 100));
        assert_eq!(window, ReceiveWindow::new(200));
    }

    #[test]
    fn no_more_is_given_back_than_came() {
        let mut window = ReceiveWindow::new(100);
        window.receive(50).unwrap();
        assert_eq!(window.release(usize::MAX, 100), Some(50));
        assert_eq!(window.release(50, 100), None);
        assert_eq!(window, ReceiveWindow::new(100));
    }
}
