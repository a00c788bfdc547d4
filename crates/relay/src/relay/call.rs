//! One call on its way, and the table of those that there are.

use evenkeel_balance::{Call as Ticket, Code, Hedges, Retries, SubchannelId, Time};
use smallvec::SmallVec;

use crate::{
    connection::StreamKey,
    fields::Fields,
    message::Lengths,
    relay::{Repeats, conns::ConnIx, stock::Stock},
};

/// A call from its head to its last byte.
///
/// ```text
///   begun ──► placed ◄──► waiting: for a picker, for a stream, for its retry's time
///               │
///               ▼ a response's head counts
///           committed ──► its end has come ──► the client has all of it: gone
/// ```
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(crate) struct Call<M> {
    generation: u32,
    pub(crate) client: ConnIx,
    pub(crate) stream: StreamKey,
    /// Until its end is known.
    pub(crate) method: Option<M>,
    pub(crate) head: Fields,
    pub(crate) started: Time,
    pub(crate) deadline: Option<Time>,
    pub(crate) wait_for_ready: bool,

    pub(crate) request: Stock,
    pub(crate) request_lengths: Lengths,
    pub(crate) request_ended: bool,
    /// Whether `request` still has all of it.
    pub(crate) can_replay: bool,

    /// Those that run; after the commitment there is one at most.
    pub(crate) attempts: SmallVec<[Attempt; 1]>,
    pub(crate) committed: bool,
    /// Places in endpoints' lines for streams: one, or more where it is hedged.
    pub(crate) in_line: SmallVec<[Ticket; 1]>,
    /// Endpoints that have failed it, or that a hedge is on.
    pub(crate) avoided: SmallVec<[SubchannelId; 2]>,
    pub(crate) was_refused: bool,
    pub(crate) retries: Retries,
    pub(crate) hedges: Option<Hedges>,
    pub(crate) repeats: Repeats,
    /// When the next attempt is due.
    pub(crate) wake_at: Option<Time>,

    /// What the client has not taken yet.
    pub(crate) response: Stock,
    pub(crate) response_lengths: Lengths,
    /// What comes after `response`, once it is known.
    pub(crate) response_end: Option<ResponseEnd>,
}

/// How a response ends.
#[derive(Debug)]
pub(crate) enum ResponseEnd {
    /// Without trailers.
    Plain,
    Trailers(Box<Fields>),
}

/// A call on an endpoint.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) ticket: Ticket,
    pub(crate) conn: ConnIx,
    pub(crate) stream: StreamKey,
    pub(crate) started: Time,
    /// How much of the request it has been sent.
    pub(crate) sent: u64,
    /// The messages in that.
    pub(crate) lengths: Lengths,
    /// Whether the request's end was sent, too.
    pub(crate) is_sent: bool,
    /// What the response's head said of the call's end.
    pub(crate) head_code: Option<Code>,
}

impl Attempt {
    /// So much more of the request has been sent.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        self.sent += data.len() as u64;
        let followed = self.lengths.follow(data, u32::MAX);
        debug_assert!(followed.is_ok(), "no length is beyond that limit");
    }
}

/// Names a call, also after it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallKey {
    pub(crate) ix: CallIx,
    generation: u32,
}

/// Where a call is in the table; the tag of its streams.
pub(crate) type CallIx = u32;

/// The calls of a relay. One that has gone leaves its memory to the next in its place.
#[derive(Debug)]
pub(crate) struct Calls<M> {
    calls: Vec<Call<M>>,
    vacant: Vec<CallIx>,
}

impl<M> Default for Calls<M> {
    fn default() -> Self {
        Self { calls: Vec::new(), vacant: Vec::new() }
    }
}

impl<M> Calls<M> {
    /// A new call. Its head is what `head` has; `head` gets an empty list's memory in return.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        client: ConnIx,
        stream: StreamKey,
        head: &mut Fields,
        method: M,
    ) -> CallIx {
        let ix = match self.vacant.pop() {
            Some(ix) => ix,
            None => self.grow(client, stream),
        };
        let call = &mut self.calls[ix as usize];
        (call.client, call.stream, call.started, call.method) = (client, stream, now, Some(method));
        std::mem::swap(&mut call.head, head);
        ix
    }

    fn grow(&mut self, client: ConnIx, stream: StreamKey) -> CallIx {
        let ix = CallIx::try_from(self.calls.len()).expect("fewer calls than 4 billion");
        self.calls.push(Call::vacant(client, stream));
        ix
    }

    /// The call has gone. Returns how many bytes it kept.
    pub(crate) fn remove(&mut self, ix: CallIx) -> usize {
        self.vacant.push(ix);
        self.calls[ix as usize].clear()
    }

    pub(crate) fn key(&self, ix: CallIx) -> CallKey {
        CallKey { ix, generation: self.calls[ix as usize].generation }
    }

    /// Where the call is, if it has not gone.
    pub(crate) fn find(&self, key: CallKey) -> Option<CallIx> {
        (self.calls[key.ix as usize].generation == key.generation).then_some(key.ix)
    }

    /// Those that run.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CallIx, &Call<M>)> {
        (0..).zip(&self.calls).filter(|(_, call)| call.is_live())
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len() - self.vacant.len()
    }
}

impl<M> std::ops::Index<CallIx> for Calls<M> {
    type Output = Call<M>;

    fn index(&self, ix: CallIx) -> &Call<M> {
        &self.calls[ix as usize]
    }
}

impl<M> std::ops::IndexMut<CallIx> for Calls<M> {
    fn index_mut(&mut self, ix: CallIx) -> &mut Call<M> {
        &mut self.calls[ix as usize]
    }
}

impl<M> Call<M> {
    fn vacant(client: ConnIx, stream: StreamKey) -> Self {
        Self {
            generation: 0,
            client,
            stream,
            method: None,
            head: Fields::new(),
            started: Time::ZERO,
            deadline: None,
            wait_for_ready: false,
            request: Stock::default(),
            request_lengths: Lengths::default(),
            request_ended: false,
            can_replay: true,
            attempts: SmallVec::new(),
            committed: false,
            in_line: SmallVec::new(),
            avoided: SmallVec::new(),
            was_refused: false,
            retries: Retries::new(),
            hedges: None,
            repeats: Repeats::default(),
            wake_at: None,
            response: Stock::default(),
            response_lengths: Lengths::default(),
            response_end: None,
        }
    }

    fn clear(&mut self) -> usize {
        let freed = self.request.reset() + self.response.reset();
        self.generation = self.generation.wrapping_add(1);
        self.method = None;
        self.head.clear();
        (self.deadline, self.wake_at, self.wait_for_ready) = (None, None, false);
        (self.request_ended, self.can_replay, self.committed, self.was_refused) = (false, true, false, false);
        (self.request_lengths, self.response_lengths) = (Lengths::default(), Lengths::default());
        self.attempts.clear();
        self.avoided.clear();
        self.in_line.drain(..).for_each(Ticket::withdraw);
        (self.retries, self.hedges, self.repeats) = (Retries::new(), None, Repeats::default());
        self.response_end = None;
        freed
    }

    /// Whether it is there at all: it is until its end is known and the client has all of it.
    fn is_live(&self) -> bool {
        self.method.is_some() || self.response_end.is_some()
    }

    /// The attempt on this stream of this connection.
    pub(crate) fn attempt(&self, conn: ConnIx, stream: StreamKey) -> Option<usize> {
        self.attempts.iter().position(|attempt| attempt.conn == conn && attempt.stream == stream)
    }

    /// How much payload is kept of it, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.request.len() + self.response.len()
    }

    /// Gives up a place in the line of an endpoint.
    pub(crate) fn leave_line(&mut self, id: SubchannelId) -> Option<Ticket> {
        let place = self.in_line.iter().position(|ticket| ticket.subchannel() == id)?;
        Some(self.in_line.swap_remove(place))
    }

    /// Whether another attempt would be of use: it is not once one counts, or once what one was sent is not kept any more.
    pub(crate) fn wants_attempt(&self) -> bool {
        !self.committed && (self.can_replay || self.attempts.is_empty())
    }

    /// When something is due without anything happening.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let due = if self.committed { None } else { self.wake_at };
        match self.method.is_some().then_some(self.deadline).flatten() {
            Some(deadline) => Some(due.map_or(deadline, |due| due.min(deadline))),
            None => due,
        }
    }

    /// How many attempts there were before the present one.
    pub(crate) fn previous(&self) -> u32 {
        self.hedges.as_ref().map_or_else(|| self.retries.previous(), Hedges::previous)
    }

    /// The call's path; empty for a call that has gone.
    pub(crate) fn path(&self) -> &str {
        self.head.value(b":path").and_then(|path| std::str::from_utf8(path).ok()).unwrap_or_default()
    }
}
