//! The line for streams, and the count of those that are open. The line is the product's; the count is a model of
//! `Connection::try_permit` and of `Permit`'s drop, whose type holds an HTTP/2 connection.

use loom::{future::block_on, sync::Arc, thread};

use crate::{
    queue::StreamQueue,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Release, SeqCst},
    },
};

/// A connection that allows one stream at a time.
struct Connection {
    open: AtomicUsize,
    closed: AtomicUsize,
    queue: StreamQueue,
}

struct Closed;

impl Connection {
    fn with_open(open: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(open), closed: AtomicUsize::new(0), queue: StreamQueue::default() })
    }

    fn try_permit(&self) -> Result<bool, Closed> {
        if self.closed.load(Acquire) == 1 {
            return Err(Closed);
        }
        Ok(self.open.fetch_update(SeqCst, SeqCst, |open| (open < 1).then_some(open + 1)).is_ok())
    }

    /// A stream ends.
    fn release(&self) {
        self.open.fetch_sub(1, SeqCst);
        self.queue.call_next();
    }

    fn close(&self) {
        self.closed.store(1, Release);
        self.queue.call_all();
    }

    /// Waits for a stream.
    async fn permit(&self) -> Result<(), Closed> {
        let place = self.queue.arrive(0);
        loop {
            let turn = self.queue.wait(place);
            if self.try_permit()? {
                return Ok(());
            }
            turn.await;
        }
    }
}

pub(crate) fn an_end_is_not_missed() {
    let connection = Connection::with_open(1);
    let running = Arc::clone(&connection);
    let thread = thread::spawn(move || running.release());
    assert!(block_on(connection.permit()).is_ok());
    thread.join().unwrap();
    assert!(connection.queue.is_empty());
}

pub(crate) fn a_turn_given_up_is_passed_on() {
    let connection = Connection::with_open(1);
    let (first, second) = (connection.queue.arrive(0), connection.queue.arrive(0));
    let (first, second) = (connection.queue.wait(first), connection.queue.wait(second));
    let running = Arc::clone(&connection);
    let thread = thread::spawn(move || running.release());
    drop(first);
    block_on(second);
    thread.join().unwrap();
    assert!(connection.queue.is_empty());
}

pub(crate) fn the_connections_end_is_not_missed() {
    let connection = Connection::with_open(1);
    let line = Arc::clone(&connection);
    let thread = thread::spawn(move || line.close());
    assert!(block_on(connection.permit()).is_err());
    thread.join().unwrap();
}
