//! The line of calls that wait for a stream, where a server allows no more at a time.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll},
};

use crate::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
    oneshot,
};

/// Calls that wait for a stream on the connections of one subchannel: the most urgent first, and of equals the one that
/// came first.
///
/// A stream that ends gives one call its turn. Nobody overtakes: who comes while others wait gets in line.
#[derive(Debug, Default)]
pub struct StreamQueue {
    /// How many wait: read by every call, written only while some do.
    length: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<Place, oneshot::Sender<()>>,
    arrivals: u64,
}

/// Where a call stands in line: by priority, then by the order of arrival.
pub type Place = (Reverse<i8>, u64);

impl StreamQueue {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length.load(SeqCst) == 0
    }

    /// A place in line for one that comes now.
    pub fn arrive(&self, priority: i8) -> Place {
        let mut line = self.line();
        line.arrivals += 1;
        (Reverse(priority), line.arrivals)
    }

    /// Whether nobody is before `place`.
    pub fn is_first(&self, place: Place) -> bool {
        self.line().waiting.first_key_value().is_none_or(|(first, _)| *first >= place)
    }

    /// Gets in line. Look for a stream once more before you wait: one may have ended in between.
    pub fn wait(&self, place: Place) -> Turn<'_> {
        let (sender, called) = oneshot::channel();
        let mut line = self.line();
        line.waiting.insert(place, sender);
        self.length.store(line.waiting.len(), SeqCst);
        Turn { queue: self, place, called, is_over: false }
    }

    /// A stream has ended: the next call has its turn.
    pub fn call_next(&self) {
        if self.is_empty() {
            return;
        }
        let mut line = self.line();
        while let Some((_, next)) = line.waiting.pop_first() {
            // Who has stopped waiting is passed over.
            if next.send(()).is_ok() {
                break;
            }
        }
        self.length.store(line.waiting.len(), SeqCst);
    }

    /// Everybody has their turn: there are more streams, or there will be none.
    pub fn call_all(&self) {
        let mut line = self.line();
        for (_, waiting) in std::mem::take(&mut line.waiting) {
            // Who has stopped waiting does not mind.
            let _ = waiting.send(());
        }
        self.length.store(0, SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line: ready when it is this call's turn. Dropped after that, unused, it gives the turn to the next.
#[derive(Debug)]
pub struct Turn<'a> {
    queue: &'a StreamQueue,
    place: Place,
    called: oneshot::Receiver<()>,
    is_over: bool,
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.called).poll(cx).map(drop);
        self.is_over |= polled.is_ready();
        polled
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut line = self.queue.line();
        let was_waiting = line.waiting.remove(&self.place).is_some();
        self.queue.length.store(line.waiting.len(), SeqCst);
        drop(line);
        if !was_waiting {
            self.queue.call_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_called(turn: &mut Turn<'_>) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *turn).poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn the_urgent_go_first_and_of_equals_the_first() {
        let queue = StreamQueue::default();
        let (mut first, mut second, mut urgent) =
            (queue.wait(queue.arrive(0)), queue.wait(queue.arrive(0)), queue.wait(queue.arrive(1)));
        queue.call_next();
        assert!(is_called(&mut urgent).await && !is_called(&mut first).await);
        queue.call_next();
        assert!(is_called(&mut first).await && !is_called(&mut second).await);
        assert!(!queue.is_empty());
        queue.call_next();
        assert!(is_called(&mut second).await && queue.is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_is_not_used_goes_to_the_next() {
        let queue = StreamQueue::default();
        let (first, second, mut third) =
            (queue.wait(queue.arrive(0)), queue.wait(queue.arrive(0)), queue.wait(queue.arrive(0)));
        drop(second);
        queue.call_next();
        assert!(!is_called(&mut third).await);
        drop(first);
        assert!(is_called(&mut third).await && queue.is_empty());
        let (mut one, mut other) = (queue.wait(queue.arrive(0)), queue.wait(queue.arrive(0)));
        queue.call_all();
        assert!(is_called(&mut one).await && is_called(&mut other).await && queue.is_empty());
    }
}
