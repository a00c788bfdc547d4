use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
};

use mio::{Registry, Token, Waker};

use super::{Counters, Dialled};
use crate::engine::DialId;

/// What other threads tell a worker.
pub(super) enum Message<E> {
    Dialled(DialId, Result<Dialled, String>),
    Refresh,
    Drain,
    Stop,
    Inspect(Box<dyn FnOnce(&mut E) + Send>),
}

/// Reaches a worker from other threads. What is told to one that has ended is dropped.
pub struct Handle<E> {
    messages: Sender<Message<E>>,
    bell: Arc<Bell>,
    counters: Arc<Counters>,
}

/// The worker's end.
pub(super) struct Inbox<E> {
    messages: Receiver<Message<E>>,
    bell: Arc<Bell>,
    is_ready: bool,
}

/// Wakes the worker: once for all messages that it has not taken in yet, since each time is a system call.
struct Bell {
    waker: Waker,
    has_rung: AtomicBool,
}

/// An inbox whose messages make `token` ready.
pub(super) fn inbox<E>(
    registry: &Registry,
    token: Token,
    counters: Arc<Counters>,
) -> io::Result<(Inbox<E>, Handle<E>)> {
    let bell = Arc::new(Bell { waker: Waker::new(registry, token)?, has_rung: AtomicBool::new(false) });
    let (sender, messages) = mpsc::channel();
    Ok((Inbox { messages, bell: Arc::clone(&bell), is_ready: false }, Handle { messages: sender, bell, counters }))
}

impl<E> Handle<E> {
    /// Answers [`Host::dial`](super::Host::dial): with a connected socket, or why there is none.
    pub fn dialled(&self, dial: DialId, outcome: Result<Dialled, String>) {
        self.send(Message::Dialled(dial, outcome));
    }

    /// What the engine goes by has a newer version.
    pub fn refresh(&self) {
        self.send(Message::Refresh);
    }

    /// Takes no more connections, and ends when the last client is gone. Whoever sets a limit to that calls
    /// [`stop`](Self::stop) when it is reached.
    pub fn drain(&self) {
        self.send(Message::Drain);
    }

    /// Ends the worker at once, with all its connections.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    /// Runs `look` on the worker's thread, between two turns' work: for reports, which `look` sends where they are wanted.
    pub fn inspect(&self, look: impl FnOnce(&mut E) + Send + 'static) {
        self.send(Message::Inspect(Box::new(look)));
    }

    /// What the worker has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn send(&self, message: Message<E>) {
        // Fails only where the worker has ended.
        if self.messages.send(message).is_ok() {
            self.bell.ring();
        }
    }
}

impl<E> Inbox<E> {
    /// The bell has rung. What comes from now on rings it again.
    pub(super) fn set_ready(&mut self) {
        self.bell.has_rung.swap(false, Ordering::AcqRel);
        self.is_ready = true;
    }

    /// The next message, if there is one.
    pub(super) fn next(&mut self) -> Option<Message<E>> {
        if !self.is_ready {
            return None;
        }
        let message = self.messages.try_recv().ok();
        self.is_ready = message.is_some();
        message
    }
}

impl Bell {
    fn ring(&self) {
        if self.has_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.waker.wake() {
            tracing::error!(target: "evenkeel::relay", %error, "a worker cannot be woken; it hears messages late");
        }
    }
}

impl<E> Clone for Handle<E> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), bell: Arc::clone(&self.bell), counters: Arc::clone(&self.counters) }
    }
}

impl<E> fmt::Debug for Handle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("counters", &self.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, thread};

    use mio::{Events, Poll};

    use super::*;
    use crate::driver::Worker;

    #[test]
    fn workers_and_handles_go_to_other_threads_though_their_engine_does_not() {
        fn is_send<T: Send>() {}
        fn is_sync<T: Sync>() {}
        is_send::<Worker<Rc<()>>>();
        is_send::<Handle<Rc<()>>>();
        is_sync::<Handle<Rc<()>>>();
    }

    #[test]
    fn no_message_is_missed_however_they_and_the_looks_for_them_overlap() {
        let mut poll = Poll::new().unwrap();
        let (mut inbox, handle) = inbox::<usize>(poll.registry(), Token(0), Arc::default()).unwrap();
        let mut events = Events::with_capacity(8);
        let sending = thread::spawn(move || (0..10_000).for_each(|_| handle.inspect(|heard| *heard += 1)));
        let mut heard = 0;
        while heard < 10_000 {
            poll.poll(&mut events, None).unwrap();
            inbox.set_ready();
            while let Some(Message::Inspect(look)) = inbox.next() {
                look(&mut heard);
            }
        }
        sending.join().unwrap();
        assert!(inbox.next().is_none());
    }
}
