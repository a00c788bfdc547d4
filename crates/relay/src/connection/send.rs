//! What the owner sends: heads, payload, trailers, resets.

use evenkeel_balance::Time;

use super::{Connection, Role, StreamKey, output, streams::Half};
use crate::{fields::Field, frame::ErrorCode};

impl Connection {
    /// How many streams may be opened now. Client role; zero in the other.
    ///
    /// It is what the peer allows at once (100 before it has said) less what is open, and zero while the connection is
    /// leaving, closed or out of ids, and while more output waits than
    /// [`output_limit`](super::Settings::output_limit).
    pub fn room(&self) -> usize {
        let may_open =
            self.role == Role::Client && !self.is_leaving() && self.output.len() < self.settings.output_limit;
        if !may_open {
            return 0;
        }
        let ids = (LAST_ID + 2).saturating_sub(self.next_id) / 2;
        (self.peer.max_concurrent_streams as usize).saturating_sub(self.streams.len()).min(ids as usize)
    }

    /// The largest header list that the peer takes, in bytes as `SETTINGS_MAX_HEADER_LIST_SIZE` counts them; `u32::MAX`
    /// unless it has said less. A larger one is sent all the same; what the peer then does may cost the connection.
    pub fn peer_max_header_list(&self) -> u32 {
        self.peer.max_header_list
    }

    /// Opens a stream by its head; `ends` if nothing follows. Client role. None without [room](Self::room).
    pub fn open<'a>(&mut self, tag: u32, head: impl Iterator<Item = Field<'a>>, ends: bool) -> Option<StreamKey> {
        if self.room() == 0 {
            return None;
        }
        let id = self.next_id;
        self.next_id += 2;
        self.counters.streams += 1;
        // Only a server asks how old a stream is.
        let opened = self.received_at;
        let stream = self.streams.insert(id, self.peer.initial_window, self.stream_window, opened);
        if let Some(state) = self.streams.get_mut(stream) {
            state.tag = tag;
        }
        self.write_head(stream, head, ends);
        Some(stream)
    }

    /// Sends a response's head; `ends` if nothing follows. Server role, once a stream.
    pub fn send_head<'a>(&mut self, stream: StreamKey, head: impl Iterator<Item = Field<'a>>, ends: bool) {
        if self.can_send(stream, Half::Fresh) {
            self.guard.answered();
            self.write_head(stream, head, ends);
        }
    }

    /// Sends trailers, which end our half of the stream. Its head must have been sent.
    pub fn send_trailers<'a>(&mut self, stream: StreamKey, trailers: impl Iterator<Item = Field<'a>>) {
        if self.can_send(stream, Half::Open) {
            self.write_head(stream, trailers, true);
        }
    }

    /// Whether the stream lives on a connection that is not closed, and its sending half is like this.
    #[inline]
    fn can_send(&self, stream: StreamKey, half: Half) -> bool {
        !self.goodbye.is_closed() && self.streams.get(stream).is_some_and(|state| state.sending == half)
    }

    fn write_head<'a>(&mut self, stream: StreamKey, fields: impl Iterator<Item = Field<'a>>, ends: bool) {
        let position = self.output.position();
        let Some(state) = self.streams.get_mut(stream) else { return };
        if state.sending == Half::Fresh {
            state.sending = Half::Open;
            state.head_at = position;
        }
        let encoder = &mut self.encoder;
        self.output.headers(stream.id(), ends, self.peer.max_frame, |out| encoder.encode(fields, out));
        self.guard.worked(0);
        if ends {
            self.streams.end_sending(stream);
        }
    }

    /// Sends as much of `data` as the stream's window, the connection's window and the output's limit let pass; with
    /// `ends`, the stream's half ends when all has passed. The head must have been sent.
    ///
    /// Returns how many bytes were taken. If they are not all, the stream is blocked and will come out of
    /// [`poll_writable`](Self::poll_writable) when it may go on.
    pub fn send_data(&mut self, stream: StreamKey, data: &[u8], ends: bool) -> usize {
        if !self.can_send(stream, Half::Open) {
            return 0;
        }
        let room = self.settings.output_limit.saturating_sub(self.output.len()).min(self.send_window.room());
        let Some(state) = self.streams.get_mut(stream) else { return 0 };
        let taken = data.len().min(room).min(state.send_window.room());
        state.send_window.take(taken);
        self.send_window.take(taken);
        let is_all = taken == data.len();
        if taken > 0 || (is_all && ends) {
            self.output.data(stream.id(), &data[..taken], is_all && ends, self.peer.max_frame);
            self.guard.worked(taken);
        }
        match (is_all, ends) {
            (false, _) => self.streams.block(stream),
            (true, true) => self.streams.end_sending(stream),
            (true, false) => self.streams.unblock(stream),
        }
        taken
    }

    /// The next stream that was blocked and may go on, in the order they became able to; each comes once, until its
    /// owner is blocked again.
    pub fn poll_writable(&mut self) -> Option<StreamKey> {
        // Half the limit, so that streams go on by large pieces.
        let may_write = self.send_window.room() > 0 && self.output.len() <= self.settings.output_limit / 2;
        if may_write && !self.goodbye.is_closed() { self.streams.pop_ready() } else { None }
    }

    /// Ends a stream by `RST_STREAM`. What the peer has sent on it before it hears of that is ignored.
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        if !self.goodbye.is_closed() && self.streams.remove(stream).is_some() {
            output::write_reset(stream.id(), code, self.output.buffer());
            self.counters.resets_sent += 1;
            self.resets.remember(stream.id());
        }
    }

    /// `bytes` of received payload have been passed on: the peer may send as many more.
    ///
    /// That is told to it at half a window. A stream whose payload drains well has its window doubled, up to
    /// [`most_stream_window`](super::Settings::most_stream_window). The connection's window is given back on receipt, by
    /// itself.
    #[inline]
    pub fn release(&mut self, stream: StreamKey, bytes: usize) {
        let most = self.settings.most_stream_window;
        let Some(state) = self.streams.get_mut(stream) else { return };
        if let Some(grant) = state.receive_window.release(bytes, most)
            && state.receiving != Half::Ended
            && !self.goodbye.is_closed()
        {
            output::write_window_update(stream.id(), grant, self.output.buffer());
        }
    }

    /// Asks the peer for a sign of life, which comes as [`Event::Pong`](super::Event::Pong) with the same payload.
    pub fn ping(&mut self, payload: u64) {
        if self.goodbye.is_closed() {
            return;
        }
        self.pings_sent += 1;
        output::write_ping(payload, false, self.output.buffer());
    }

    /// The bytes to write.
    #[inline]
    pub fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    /// `written` bytes of the [output](Self::output) are written. An emptied buffer gives its memory back, as do the
    /// streams' tables when there is none.
    pub fn consume(&mut self, now: Time, written: usize) {
        self.written_at = now;
        self.output.consume(written);
        self.streams.trim();
    }

    /// Whether the first byte of the stream's head has left. True of a stream that is over: nothing is known of it.
    pub fn is_written(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_none_or(|state| self.output.is_written(state.head_at))
    }
}

/// The largest id a client's stream can have.
const LAST_ID: u32 = (1 << 31) - 1;
