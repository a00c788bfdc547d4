//! The last lines of a replica.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

/// How many lines are kept.
const KEPT: usize = 20;
/// How much of each, in bytes.
const KEPT_OF_LINE: usize = 1024;

/// Which of its two streams a child wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// A line that a child wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Where to.
    pub stream: Stream,
    /// Its first 1024 bytes, without control characters and with U+FFFD for what is not UTF-8.
    pub line: String,
}

/// The last 20 lines, of both streams. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(in crate::process) struct Tail(Arc<Mutex<VecDeque<Line>>>);

impl Tail {
    pub(in crate::process) fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn push(&self, stream: Stream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(KEPT_OF_LINE)]);
        let line = text.chars().filter(|char| !char.is_control() || *char == '\t').collect();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(Line { stream, line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_short_and_harmless() {
        let tail = Tail::default();
        for number in 0..30 {
            tail.push(Stream::Stdout, format!("line {number}").as_bytes());
        }
        tail.push(Stream::Stderr, b"\x1b[31mred\xff\ttab\x07");
        tail.push(Stream::Stdout, &[b'x'; 5000]);
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].line.as_str()), (KEPT, "line 12"));
        assert_eq!((lines[18].stream, lines[18].line.as_str()), (Stream::Stderr, "[31mred\u{fffd}\ttab"));
        assert_eq!(lines[19].line.len(), KEPT_OF_LINE);
    }
}
