use std::{
    fmt,
    io::{self, ErrorKind},
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use evenkeel_balance::Time;
use mio::{Events, Poll, Token};

use super::{
    Counters, Dialled, Handle, Host, Listener, Settings,
    clock::Clock,
    inbox::{self, Inbox, Message},
    listener::{self, Accepted, Acceptor},
    socket::{Origin, Socket, State},
    sockets::Sockets,
    tls::Tls,
};
use crate::engine::{Action, DialId, Engine};

/// Events that the kernel hands over at once; more come with the next turn.
const EVENTS_A_TURN: usize = 1024;

/// Connections that are accepted in one turn, so that a flood of them does not hold up those there are.
const ACCEPTS_A_TURN: usize = 64;

/// How often a turn writes what its own writes have made room for.
const PASSES_A_TURN: usize = 8;

/// The token of the inbox. Sockets have their slots, which are `u32`s, and listeners what is below this.
const INBOX: usize = usize::MAX;

/// An event loop, to be run by a thread of its own; the module's documentation says what a turn of it is.
pub struct Worker<E> {
    poll: Poll,
    acceptor: Acceptor,
    inbox: Inbox<E>,
    host: Box<dyn Host>,
    clock: Clock,
    /// When this turn began.
    pub(super) now: Time,
    pub(super) settings: Settings,
    pub(super) counters: Arc<Counters>,
    pub(super) sockets: Sockets,
    /// What every socket is read into.
    pub(super) buffer: Box<[u8]>,
    /// An empty list, to be filled while one that was filled is worked off.
    spare: Vec<u32>,
    /// The last turn has left something to do.
    is_unfinished: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Stopped,
}

impl<E: Engine> Worker<E> {
    /// A worker that accepts from `listeners`, and the handle by which other threads reach it.
    ///
    /// # Errors
    ///
    /// Where the kernel has no file descriptors left for it.
    ///
    /// # Panics
    ///
    /// If [`Settings::read_buffer`] is 0: nothing could be read.
    pub fn new(
        listeners: Vec<Listener>,
        host: impl Host + 'static,
        settings: Settings,
    ) -> io::Result<(Self, Handle<E>)> {
        assert!(settings.read_buffer > 0, "a worker reads nothing with a buffer of 0 bytes");
        let poll = Poll::new()?;
        let counters = Arc::new(Counters::default());
        let (inbox, handle) = inbox::inbox(poll.registry(), Token(INBOX), Arc::clone(&counters))?;
        let acceptor = Acceptor::new(listeners, poll.registry(), |number| Token(INBOX - 1 - number))?;
        let clock = Clock::since(settings.epoch);
        let worker = Self {
            poll,
            acceptor,
            inbox,
            host: Box::new(host),
            clock,
            now: clock.now(),
            buffer: vec![0; settings.read_buffer].into(),
            settings,
            counters,
            sockets: Sockets::default(),
            spare: Vec::new(),
            is_unfinished: false,
            phase: Phase::Serving,
        };
        Ok((worker, handle))
    }

    /// Runs the worker on a thread `relay-<number>`, with an engine that is made there and need not leave it. The thread
    /// ends as [`run`](Self::run) does; what [`run`](Self::run) fails with is its result.
    ///
    /// # Errors
    ///
    /// Where the system makes no more threads.
    pub fn spawn(
        self,
        number: usize,
        engine: impl FnOnce() -> E + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<()>>>
    where
        E: 'static,
    {
        thread::Builder::new().name(format!("relay-{number}")).spawn(move || self.run(engine()).map(drop))
    }

    /// Works until the worker is stopped, or drained and the last client is gone; then gives the engine back.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to say which sockets are ready, which it has no reason to.
    pub fn run(mut self, mut engine: E) -> io::Result<E> {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        self.now = self.clock.now();
        self.act(&mut engine);
        while !self.is_done(&engine) {
            self.wait(&mut events, &engine)?;
            self.turn(&events, &mut engine);
        }
        Ok(engine)
    }

    fn is_done(&self, engine: &E) -> bool {
        match self.phase {
            Phase::Serving => false,
            Phase::Draining => self.sockets.clients() == 0 && engine.is_idle(),
            Phase::Stopped => true,
        }
    }

    fn wait(&mut self, events: &mut Events, engine: &E) -> io::Result<()> {
        let timeout = self.timeout(engine);
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// How long there is nothing to do, measured from the begin of the last turn; the kernel counts in milliseconds anyway.
    fn timeout(&mut self, engine: &E) -> Option<Duration> {
        if self.is_unfinished || self.acceptor.is_ready() || self.sockets.has_readable() {
            return Some(Duration::ZERO);
        }
        let deadlines = [engine.next_timeout(), self.sockets.next_deadline(), self.acceptor.next_timeout()];
        deadlines.into_iter().flatten().min().map(|at| at.since(self.now))
    }

    fn turn(&mut self, events: &Events, engine: &mut E) {
        self.now = self.clock.now();
        self.counters.turns.add(1);
        self.notice(events);
        self.read_all(engine);
        self.accept(engine);
        self.hear(engine);
        self.handle_timeouts(engine);
        self.act(engine);
    }

    fn notice(&mut self, events: &Events) {
        for event in events {
            let Token(token) = event.token();
            match u32::try_from(token) {
                Ok(slot) => self.sockets.notice(slot, event),
                Err(_) if token == INBOX => self.inbox.set_ready(),
                Err(_) => self.acceptor.set_ready(INBOX - 1 - token),
            }
        }
    }

    fn read_all(&mut self, engine: &mut E) {
        let mut list = self.sockets.take_readable(mem::take(&mut self.spare));
        for slot in list.drain(..) {
            self.read(engine, slot);
        }
        self.spare = list;
    }

    fn accept(&mut self, engine: &mut E) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(accepted) = self.acceptor.accept(self.now, &self.counters) else { return };
            self.admit(engine, accepted);
        }
    }

    fn admit(&mut self, engine: &mut E, (stream, config): Accepted) {
        if self.sockets.clients() >= self.settings.max_connections {
            self.counters.refused.add(1);
            return;
        }
        let tls = config.map(Tls::server).transpose().map_err(io::Error::other);
        let added = tls.and_then(|tls| Socket::accepted(stream, tls)).and_then(|socket| self.add(engine, socket));
        match added {
            Ok(()) => self.counters.accepted.add(1),
            Err(error) => {
                self.counters.accept_errors.add(1);
                tracing::debug!(target: "evenkeel::relay", %error, "a client's connection cannot be used");
            }
        }
    }

    /// Takes in what other threads have said.
    fn hear(&mut self, engine: &mut E) {
        while let Some(message) = self.inbox.next() {
            match message {
                Message::Dialled(dial, Ok(dialled)) => self.dialled(engine, dial, dialled),
                Message::Dialled(dial, Err(why)) => drop(engine.dialled(self.now, dial, Err(why))),
                Message::Refresh => engine.refresh(self.now),
                Message::Drain => self.drain(engine),
                Message::Stop => self.phase = Phase::Stopped,
                Message::Inspect(look) => look(engine),
            }
        }
    }

    fn dialled(&mut self, engine: &mut E, dial: DialId, dialled: Dialled) {
        let socket = Socket::dialled(dial, dialled);
        let added = socket.and_then(|socket| self.add(engine, socket).map_err(|error| error.to_string()));
        if let Err(why) = added {
            engine.dialled(self.now, dial, Err(why));
        }
    }

    /// Those who are already connected are let in, so that they hear that they have to go elsewhere.
    fn drain(&mut self, engine: &mut E) {
        if self.phase != Phase::Serving {
            return;
        }
        self.acceptor.set_all_ready();
        for _ in 0..listener::BACKLOG {
            let Some(accepted) = self.acceptor.accept(self.now, &self.counters) else { break };
            self.admit(engine, accepted);
        }
        self.acceptor.close();
        self.phase = Phase::Draining;
        engine.drain(self.now);
    }

    /// Takes in a socket. The engine hears of it now, or after the handshake.
    fn add(&mut self, engine: &mut E, mut socket: Socket) -> io::Result<()> {
        let slot = self.sockets.next_slot();
        socket.register(self.poll.registry(), Token(slot as usize))?;
        let (shakes_hands, origin) = (socket.tls.is_some(), socket.origin);
        self.sockets.insert(socket);
        if shakes_hands {
            self.sockets.enter(slot, State::Handshaking, Some(self.now + self.settings.handshake_timeout));
            self.sockets.mark_dirty(slot);
        } else {
            self.introduce(engine, slot, origin);
        }
        Ok(())
    }

    /// Tells the engine of a socket that can carry its bytes now.
    pub(super) fn introduce(&mut self, engine: &mut E, slot: u32, origin: Origin) {
        let key = match origin {
            Origin::Accepted => Some(engine.accept(self.now)),
            Origin::Dialled(dial) => engine.dialled(self.now, dial, Ok(())),
        };
        match key {
            Some(key) => self.sockets.open(slot, key),
            None => self.finish(slot, &[]),
        }
    }

    fn handle_timeouts(&mut self, engine: &mut E) {
        if engine.next_timeout().is_some_and(|at| at <= self.now) {
            engine.handle_timeout(self.now);
        }
        while let Some(slot) = self.sockets.pop_due(self.now) {
            self.too_slow(engine, slot);
        }
    }

    /// Does what the engine wants done, and writes.
    fn act(&mut self, engine: &mut E) {
        for _ in 0..PASSES_A_TURN {
            while let Some(action) = engine.poll_action() {
                self.perform(engine, action);
            }
            if !self.sockets.has_dirty() {
                self.is_unfinished = false;
                return;
            }
            let mut list = self.sockets.take_dirty(mem::take(&mut self.spare));
            for slot in list.drain(..) {
                self.write(engine, slot);
            }
            self.spare = list;
        }
        self.is_unfinished = true;
    }

    fn perform(&mut self, engine: &mut E, action: Action) {
        match action {
            Action::Write(key) => {
                if let Some(slot) = self.sockets.slot_of(key) {
                    self.sockets.mark_dirty(slot);
                }
            }
            Action::Close(key) => self.close(engine, key),
            Action::Dial { dial, connection, address } => self.host.dial(dial, connection, &address),
        }
    }
}

impl<E> fmt::Debug for Worker<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("acceptor", &self.acceptor)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
