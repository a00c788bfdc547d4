//! One of our own streams: a thread that writes, and a bounded line of those who want to.

use std::{io, io::Write, time::Duration};

use tokio::sync::{mpsc, oneshot};

/// How many batches wait to be written. Each holds what was read at once, some 16 KiB, and at most a line's worth more.
const WAITING: usize = 8;
/// When a stream that was set to non-blocking and is full is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// What the thread is given.
#[derive(Debug)]
enum Job {
    Write(Vec<u8>),
    Flushed(oneshot::Sender<()>),
}

/// Takes whole lines. The thread ends when this is dropped and all is written.
#[derive(Debug)]
pub(super) struct Sink(mpsc::Sender<Job>);

impl Sink {
    pub(super) fn new(name: &'static str, mut to: impl Write + Send + 'static) -> Self {
        let (sender, mut jobs) = mpsc::channel(WAITING);
        std::thread::spawn(move || {
            let mut is_open = true;
            while let Some(job) = jobs.blocking_recv() {
                match job {
                    Job::Write(lines) if is_open => is_open = write(name, &mut to, &lines),
                    // Children are not to suffer for it that nobody hears them any more.
                    Job::Write(_) => {}
                    // Whoever asked may have stopped waiting.
                    Job::Flushed(reply) => drop(reply.send(())),
                }
            }
        });
        Self(sender)
    }

    /// Waits for a place, in turn.
    pub(super) async fn write(&self, lines: Vec<u8>) {
        self.send(Job::Write(lines)).await;
    }

    pub(super) async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        self.send(Job::Flushed(reply)).await;
        // An error would say that the thread is gone, so that nothing is left to be written.
        let _: Result<(), oneshot::error::RecvError> = flushed.await;
    }

    async fn send(&self, job: Job) {
        if self.0.send(job).await.is_err() {
            tracing::error!("the thread that writes children's output has ended");
        }
    }
}

/// Whether the stream is still open.
fn write(name: &str, to: &mut impl Write, mut lines: &[u8]) -> bool {
    loop {
        let written = if lines.is_empty() { to.flush().map(|()| 0) } else { to.write(lines) };
        match written {
            Ok(0) if lines.is_empty() => return true,
            Ok(0) => return is_lost(name, &io::ErrorKind::WriteZero.into()),
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the terminal with us may have made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(AGAIN_AFTER),
            Err(error) => return is_lost(name, &error),
        }
    }
}

fn is_lost(name: &str, error: &io::Error) -> bool {
    tracing::warn!(stream = name, %error, "children's output can be written no more, and is thrown away from now on");
    false
}
