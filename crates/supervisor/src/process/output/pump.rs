//! From a child's pipe to a sink.

use std::{borrow::Cow, io, os::fd::OwnedFd, sync::Arc};

use rustix::io::ioctl_fionread;
use serde::Serialize;
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch};

use super::{
    Format, Output,
    lines::{Lines, Piece},
    sink::Sink,
    tail::{Stream, Tail},
};
use crate::process::Exit;

/// How much is read at once, in bytes.
const READ_AT_ONCE: usize = 16 * 1024;
/// Colours of prefixes: those of a terminal's palette that are read well on light and dark ground.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// A child's two pipes, each read by a task until its last writer is gone.
#[derive(Debug)]
pub(in crate::process) struct Pumps {
    drained: [watch::Receiver<bool>; 2],
}

impl Pumps {
    /// # Errors
    /// If a pipe cannot be registered with the runtime.
    pub(in crate::process) fn start(
        output: &Output,
        replica: &str,
        pipes: [(Stream, OwnedFd); 2],
        tail: &Tail,
        exit: &watch::Receiver<Option<Exit>>,
    ) -> io::Result<Self> {
        let start = |(stream, pipe)| -> io::Result<watch::Receiver<bool>> {
            let (drained, is_drained) = watch::channel(false);
            let pipe = pipe::Receiver::from_owned_fd(pipe)?;
            let look = Look::new(output.format, replica);
            let (sink, tail) = (output.sink(stream), tail.clone());
            let pump = Pump { pipe, lines: Lines::default(), look, stream, sink, tail, drained };
            tokio::spawn(pump.run(exit.clone()));
            Ok(is_drained)
        };
        let [stdout, stderr] = pipes;
        Ok(Self { drained: [start(stdout)?, start(stderr)?] })
    }

    /// Waits until all that the child wrote before its exit has been taken from its pipes.
    pub(in crate::process) async fn drained(&self) {
        for drained in &self.drained {
            // An error says that the pump has come to the pipe's end.
            let _ = drained.clone().wait_for(|drained| *drained).await;
        }
    }
}

/// Reads one pipe.
#[derive(Debug)]
struct Pump {
    pipe: pipe::Receiver,
    lines: Lines,
    look: Look,
    stream: Stream,
    sink: Arc<Sink>,
    tail: Tail,
    drained: watch::Sender<bool>,
}

impl Pump {
    /// Goes on after the child's exit: what it has left behind may still write.
    async fn run(mut self, mut exit: watch::Receiver<Option<Exit>>) {
        let mut buffer = vec![0; READ_AT_ONCE];
        // After the exit, how much there still is of what was written before it.
        let mut before_exit: Option<u64> = None;
        loop {
            let read = tokio::select! {
                biased;
                () = ended(&mut exit), if before_exit.is_none() => {
                    let waiting = ioctl_fionread(&self.pipe).unwrap_or(0);
                    before_exit = Some(waiting);
                    self.settle_at(waiting).await;
                    continue;
                }
                read = self.pipe.read(&mut buffer) => read,
            };
            let Some(read) = read.ok().filter(|read| *read > 0) else { break };
            self.forward(&buffer[..read]).await;
            if let Some(left) = before_exit.filter(|left| *left > 0) {
                let left = left.saturating_sub(read as u64);
                before_exit = Some(left);
                self.settle_at(left).await;
            }
        }
        self.settle_at(0).await;
    }

    async fn forward(&mut self, bytes: &[u8]) {
        let mut batch = Vec::with_capacity(bytes.len() * 2);
        let Self { lines, look, tail, stream, .. } = self;
        lines.push(bytes, |piece| look.show(&piece, &mut batch, tail, *stream));
        self.write(batch).await;
    }

    /// With nothing left of what the child wrote, its last line is whole, even without an end.
    async fn settle_at(&mut self, left: u64) {
        if left > 0 {
            return;
        }
        let mut batch = Vec::new();
        let Self { lines, look, tail, stream, .. } = self;
        lines.finish(|piece| look.show(&piece, &mut batch, tail, *stream));
        self.write(batch).await;
        self.drained.send_replace(true);
    }

    async fn write(&self, batch: Vec<u8>) {
        if !batch.is_empty() {
            self.sink.write(batch).await;
        }
    }
}

async fn ended(exit: &mut watch::Receiver<Option<Exit>>) {
    // An error says that nobody waits for the child any more, and so that nothing more is to come.
    drop(exit.wait_for(Option::is_some).await);
}

/// How a replica's lines are written.
#[derive(Debug)]
enum Look {
    Text { first: Vec<u8>, continued: Vec<u8> },
    Json { replica: String },
}

/// A line in JSON.
#[derive(Serialize)]
struct Record<'a> {
    replica: &'a str,
    stream: Stream,
    line: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continued: bool,
}

impl Look {
    fn new(format: Format, replica: &str) -> Self {
        let prefix = |mark| match format {
            Format::Coloured => format!("\x1b[{}m{replica} {mark}\x1b[0m ", colour(replica)).into_bytes(),
            _ => format!("{replica} {mark} ").into_bytes(),
        };
        match format {
            Format::Json => Self::Json { replica: replica.to_owned() },
            Format::Text | Format::Coloured => Self::Text { first: prefix('|'), continued: prefix('+') },
        }
    }

    fn show(&self, piece: &Piece<'_>, batch: &mut Vec<u8>, tail: &Tail, stream: Stream) {
        tail.push(stream, piece.bytes);
        match self {
            Self::Text { first, continued } => {
                batch.extend_from_slice(if piece.is_continued { continued } else { first });
                batch.extend_from_slice(piece.bytes);
            }
            Self::Json { replica } => {
                let line = String::from_utf8_lossy(piece.bytes);
                let record = Record { replica, stream, line, continued: piece.is_continued };
                batch.extend(serde_json::to_vec(&record).unwrap_or_default());
            }
        }
        batch.push(b'\n');
    }
}

/// The same for a replica every time.
fn colour(replica: &str) -> u8 {
    let sum: usize = replica.bytes().fold(7, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLOURS[sum % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: Format, bytes: &[u8], is_continued: bool) -> String {
        let mut batch = Vec::new();
        let piece = Piece { bytes, is_continued };
        Look::new(format, "a/0").show(&piece, &mut batch, &Tail::default(), Stream::Stderr);
        String::from_utf8_lossy(&batch).into_owned()
    }

    #[test]
    fn lines_have_their_replicas_prefix() {
        assert_eq!(shown(Format::Text, b"hello", false), "a/0 | hello\n");
        assert_eq!(shown(Format::Text, b"hello", true), "a/0 + hello\n");
        let coloured = shown(Format::Coloured, b"hello", false);
        assert_eq!(coloured, format!("\x1b[{}ma/0 |\x1b[0m hello\n", colour("a/0")));
    }

    #[test]
    fn json_is_one_object_a_line_whatever_the_bytes() {
        let line = shown(Format::Json, b"say \"hi\"\n\xff\x00", false);
        assert_eq!(line, "{\"replica\":\"a/0\",\"stream\":\"stderr\",\"line\":\"say \\\"hi\\\"\\n\u{fffd}\\u0000\"}\n");
        assert!(shown(Format::Json, b"", true).ends_with("\"line\":\"\",\"continued\":true}\n"));
    }
}
