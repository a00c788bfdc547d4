//! The streams of a connection: a slab, and where in it each id lies.

use std::collections::VecDeque;

use evenkeel_balance::Time;

use super::{
    ids::Index,
    windows::{Overflow, ReceiveWindow, SendWindow},
};

/// Names a stream of one connection, also after it is over: operations on it are then without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    slot: u32,
    id: u32,
}

impl StreamKey {
    /// The stream's id on the wire.
    pub const fn id(self) -> u32 {
        self.id
    }

    pub(super) const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Its head has not come or gone.
    Fresh,
    /// DATA or trailers may follow.
    Open,
    /// It has ended.
    Ended,
}

/// A stream that is not over.
#[derive(Debug)]
pub(super) struct Stream {
    id: u32,
    pub(super) tag: u32,
    pub(super) receiving: Half,
    pub(super) sending: Half,
    is_live: bool,
    /// Its owner has more to send than it could.
    is_blocked: bool,
    /// It lies in the queue of those that may go on.
    is_queued: bool,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// What is still to come according to `content-length`, in bytes.
    expected: Option<u64>,
    /// Where in the output our head lies.
    pub(super) head_at: u64,
    pub(super) opened: Time,
}

/// What comes is not as long as `content-length` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongLength;

impl Stream {
    pub(super) fn expect(&mut self, content_length: Option<u64>) {
        self.expected = content_length;
    }

    /// `bytes` of payload have come.
    #[inline]
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), WrongLength> {
        if let Some(expected) = &mut self.expected {
            *expected = expected.checked_sub(bytes as u64).ok_or(WrongLength)?;
        }
        Ok(())
    }

    /// Whether it is blocked, its own window would let it go on, and it is not queued.
    #[inline]
    fn may_queue(&self) -> bool {
        self.is_blocked && !self.is_queued && self.send_window.room() > 0
    }

    /// Whether what came is all that `content-length` promised.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.expected.is_none_or(|left| left == 0)
    }
}

/// All streams that are not over. Allocates as streams come, and gives it back in [`trim`](Self::trim).
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    index: Index,
    /// Blocked streams that their own window would let go on, in the order they became so. Some may be over.
    ready: VecDeque<StreamKey>,
}

/// An empty slab keeps this many slots.
const KEPT: usize = 8;

impl Streams {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The live stream with this id.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        self.index.get(id).map(|slot| StreamKey { slot, id })
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot as usize).filter(|stream| stream.is_live && stream.id == key.id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize).filter(|stream| stream.is_live && stream.id == key.id)
    }

    /// The tag of a stream, also of one that is over, until its slot is used again.
    #[inline]
    pub(super) fn tag(&self, key: StreamKey) -> Option<u32> {
        self.slots.get(key.slot as usize).filter(|stream| stream.id == key.id).map(|stream| stream.tag)
    }

    /// The tags of all streams that are not over.
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter(|stream| stream.is_live).map(|stream| stream.tag)
    }

    /// Adds a stream, of which nothing has come or gone.
    pub(super) fn insert(&mut self, id: u32, send_window: u32, receive_window: u32, opened: Time) -> StreamKey {
        let stream = Stream {
            id,
            tag: u32::MAX,
            receiving: Half::Fresh,
            sending: Half::Fresh,
            is_live: true,
            is_blocked: false,
            is_queued: false,
            send_window: SendWindow::new(send_window),
            receive_window: ReceiveWindow::new(receive_window),
            expected: None,
            head_at: u64::MAX,
            opened,
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = stream;
            slot
        } else {
            self.slots.push(stream);
            u32::try_from(self.slots.len() - 1).expect("there are fewer than 2^31 streams")
        };
        self.index.insert(id, slot);
        StreamKey { slot, id }
    }

    /// The stream is over. Returns its tag.
    pub(super) fn remove(&mut self, key: StreamKey) -> Option<u32> {
        let stream = self.get_mut(key)?;
        stream.is_live = false;
        let tag = stream.tag;
        self.index.remove(key.id);
        self.free.push(key.slot);
        Some(tag)
    }

    /// The receiving half has ended; with the other, the stream is over.
    #[inline]
    pub(super) fn end_receiving(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        stream.receiving = Half::Ended;
        if stream.sending == Half::Ended {
            self.remove(key);
        }
    }

    /// The sending half has ended; with the other, the stream is over.
    #[inline]
    pub(super) fn end_sending(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        stream.sending = Half::Ended;
        stream.is_blocked = false;
        if stream.receiving == Half::Ended {
            self.remove(key);
        }
    }

    /// Changes the send windows of all streams, as a new `SETTINGS_INITIAL_WINDOW_SIZE` does.
    pub(super) fn shift_send_windows(&mut self, delta: i64) -> Result<(), Overflow> {
        for (stream, slot) in self.slots.iter_mut().zip(0..) {
            if stream.is_live {
                stream.send_window.shift(delta)?;
                if stream.may_queue() {
                    stream.is_queued = true;
                    self.ready.push_back(StreamKey { slot, id: stream.id });
                }
            }
        }
        Ok(())
    }

    /// Takes `by` bytes off the receive windows of all streams.
    pub(super) fn shrink_receive_windows(&mut self, by: u32) {
        self.slots.iter_mut().for_each(|stream| stream.receive_window.shrink(by));
    }

    /// The stream's owner could not send all.
    pub(super) fn block(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            stream.is_blocked = true;
            self.queue(key);
        }
    }

    /// The stream's owner has sent all it had.
    #[inline]
    pub(super) fn unblock(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            stream.is_blocked = false;
        }
    }

    /// Queues the stream if it is blocked and its own window would let it go on.
    pub(super) fn queue(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        if !stream.may_queue() {
            return;
        }
        stream.is_queued = true;
        // Keys of streams that are over would pile up where nothing can be sent for long.
        if self.ready.len() > 2 * self.slots.len() {
            let mut ready = std::mem::take(&mut self.ready);
            ready.retain(|key| self.get(*key).is_some());
            self.ready = ready;
        }
        self.ready.push_back(key);
    }

    /// The first of the streams in the queue that may go on.
    pub(super) fn pop_ready(&mut self) -> Option<StreamKey> {
        while let Some(key) = self.ready.pop_front() {
            let Some(stream) = self.get_mut(key) else { continue };
            stream.is_queued = false;
            if stream.is_blocked && stream.send_window.room() > 0 {
                stream.is_blocked = false;
                return Some(key);
            }
        }
        None
    }

    /// The first live stream in a slot from `slot` on whose id is above `last`.
    pub(super) fn next_above(&self, last: u32, slot: usize) -> Option<StreamKey> {
        let (stream, slot) =
            self.slots.iter().zip(0..).skip(slot).find(|(stream, _)| stream.is_live && stream.id > last)?;
        Some(StreamKey { slot, id: stream.id })
    }

    /// Gives memory back if there is no stream.
    pub(super) fn trim(&mut self) {
        if self.is_empty() && self.slots.capacity() > KEPT {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_stale_keys_are_harmless() {
        let mut streams = Streams::default();
        let first = streams.insert(1, 10, 10, Time::ZERO);
        streams.get_mut(first).unwrap().tag = 7;
        assert_eq!(streams.remove(first), Some(7));
        assert_eq!((streams.remove(first), streams.tag(first)), (None, Some(7)));
        let second = streams.insert(3, 10, 10, Time::ZERO);
        assert_eq!((second.slot, streams.len()), (first.slot, 1));
        assert!(streams.get(first).is_none() && streams.tag(first).is_none());
        assert_eq!((streams.find(1), streams.find(3)), (None, Some(second)));
    }

    #[test]
    fn blocked_streams_come_in_turn_and_once() {
        let mut streams = Streams::default();
        let keys = [1, 3, 5].map(|id| streams.insert(id, 10, 10, Time::ZERO));
        keys.iter().chain(&keys).for_each(|key| streams.block(*key));
        streams.remove(keys[1]);
        assert_eq!(
            (streams.pop_ready(), streams.pop_ready(), streams.pop_ready()),
            (Some(keys[0]), Some(keys[2]), None)
        );
        streams.get_mut(keys[0]).unwrap().send_window.take(10);
        streams.block(keys[0]);
        assert_eq!(streams.pop_ready(), None, "its window is empty");
        streams.shift_send_windows(1).unwrap();
        assert_eq!(streams.pop_ready(), Some(keys[0]));
    }

    #[test]
    fn the_queue_does_not_grow_with_streams_that_are_over() {
        let mut streams = Streams::default();
        for id in (1..10_000).step_by(2) {
            let key = streams.insert(id, 10, 10, Time::ZERO);
            streams.block(key);
            streams.remove(key);
        }
        assert!(streams.ready.len() < 10);
    }
}
