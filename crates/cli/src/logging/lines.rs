use std::{
    io,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

/// How many lines wait to be written.
const WAITING: usize = 4_096;
/// How long the last lines may take to be written.
const FLUSHING_TAKES: Duration = Duration::from_secs(1);
/// When a stream that was set to non-blocking and is full is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Log lines on their way to a stream, written by a thread of their own.
///
/// Whoever logs neither waits nor fails: a supervisor and a proxy go on where nobody reads their logs, their reader is
/// gone, or the disk is full. Lines that find no place are dropped, and counted in the next one that does.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    jobs: mpsc::SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Job {
    Write(Vec<u8>),
    Flushed(mpsc::SyncSender<()>),
}

impl Lines {
    pub(super) fn to(mut stream: impl Write + Send + 'static) -> Self {
        let (jobs, waiting) = mpsc::sync_channel(WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let count = Arc::clone(&dropped);
        thread::spawn(move || {
            for job in waiting {
                match job {
                    Job::Write(line) => write(&mut stream, &line, &count),
                    // Whoever asked may have stopped waiting.
                    Job::Flushed(reply) => drop(reply.try_send(())),
                }
            }
        });
        Self { jobs, dropped }
    }

    /// Waits until what was logged so far is written, a second at most.
    pub(super) fn flush(&self) {
        let (reply, flushed) = mpsc::sync_channel(1);
        if self.jobs.try_send(Job::Flushed(reply)).is_ok() {
            // An error says that it takes too long.
            let _ = flushed.recv_timeout(FLUSHING_TAKES);
        }
    }
}

/// Takes a whole line at once, as it is given one.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.jobs.try_send(Job::Write(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(stream: &mut impl Write, line: &[u8], dropped: &AtomicU64) {
    let lost = dropped.swap(0, Relaxed);
    let notice = if lost == 0 { String::new() } else { format!("evenkeel: {lost} log lines could not be written\n") };
    let written = write_all(stream, notice.as_bytes()).and_then(|()| write_all(stream, line));
    if written.is_err() {
        dropped.fetch_add(lost + 1, Relaxed);
    }
}

fn write_all(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the terminal with us may have made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN_AFTER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// A stream that fails while it is full.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if disk.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_took_is_counted_once_there_is_room() {
        let disk = Disk::default();
        let mut lines = Lines::to(disk.clone());
        for (is_full, line) in [(false, "a\n"), (true, "b\n"), (true, "c\n"), (false, "d\n")] {
            disk.0.lock().unwrap().0 = is_full;
            lines.write_all(line.as_bytes()).unwrap();
            Lines::flush(&lines);
        }
        let text = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(text, "a\nevenkeel: 2 log lines could not be written\nd\n");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (reader, writer) = io::pipe().unwrap();
        let mut lines = Lines::to(writer);
        for _ in 0..2 * WAITING {
            lines.write_all(&[b'x'; 100]).unwrap();
        }
        assert!(lines.dropped.load(Relaxed) > 0);
        drop(reader);
    }
}
