//! Takes connections from several listeners in turn, and rests when the system has no room for more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::listener::{Listener, Socket};
use crate::metrics;

#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener that is asked first.
    first: usize,
    /// While the system has no room.
    rest: Option<Pin<Box<Sleep>>>,
    /// How long the next rest is.
    next_rest: Duration,
}

const FIRST_REST: Duration = Duration::from_millis(5);
const LONGEST_REST: Duration = Duration::from_secs(1);

impl Acceptor {
    pub(crate) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, first: 0, rest: None, next_rest: FIRST_REST }
    }

    /// The next connection.
    ///
    /// # Errors
    /// When a listener is broken for good.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        loop {
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            match ready!(self.poll_listeners(cx)) {
                Ok(socket) => {
                    self.next_rest = FIRST_REST;
                    return Poll::Ready(Ok(socket));
                }
                Err(error) => match Severity::of(&error) {
                    Severity::OneConnection => {}
                    Severity::NoRoom => self.begin_rest(&error),
                    Severity::Broken => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    fn poll_listeners(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        let count = self.listeners.len();
        for turn in 0..count {
            let at = (self.first + turn) % count;
            if let Poll::Ready(accepted) = self.listeners[at].poll_accept(cx) {
                self.first = at + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    fn begin_rest(&mut self, error: &io::Error) {
        metrics::accept_failed();
        if self.next_rest == FIRST_REST {
            tracing::warn!(%error, "cannot accept connections: raise the limit of open files, or set max_connections");
        }
        self.rest = Some(Box::pin(sleep(self.next_rest)));
        self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
    }
}

/// What an error of `accept` says of those to come.
#[derive(Debug, PartialEq)]
enum Severity {
    /// The connection was over before it was accepted.
    OneConnection,
    /// Files or memory have run out; the connection waits in the kernel, so that trying again at once would spin.
    NoRoom,
    /// The listener is none.
    Broken,
}

impl Severity {
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => Self::OneConnection,
            ErrorKind::InvalidInput | ErrorKind::Unsupported => Self::Broken,
            // Among others: EMFILE, ENFILE, ENOBUFS, ENOMEM, and EPERM of a firewall.
            _ => Self::NoRoom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn files_that_have_run_out_are_no_reason_to_end_or_to_spin() {
        // EMFILE, ENFILE and ENOMEM have these numbers on every Unix.
        for number in [24, 23, 12] {
            assert_eq!(Severity::of(&io::Error::from_raw_os_error(number)), Severity::NoRoom);
        }
        assert_eq!(Severity::of(&io::ErrorKind::ConnectionAborted.into()), Severity::OneConnection);
        assert_eq!(Severity::of(&io::Error::from_raw_os_error(22)), Severity::Broken, "EINVAL");
    }

    #[tokio::test(start_paused = true)]
    async fn rests_grow_and_end() {
        let mut acceptor = Acceptor::new(vec![Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap()]);
        for _ in 0..20 {
            acceptor.begin_rest(&io::Error::from_raw_os_error(24));
        }
        assert_eq!(acceptor.next_rest, LONGEST_REST);
        let address = acceptor.listeners[0].local_addr().unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        std::future::poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
        assert_eq!(acceptor.next_rest, FIRST_REST);
    }
}
