//! Standard output and error of children: forwarded to ours, line by line, with a prefix.
//!
//! ```text
//! child's pipe ──► pump: lines ──► sink: a bounded line ──► one thread that writes ──► our stdout
//! child's pipe ──► pump: lines ──►   (the same for stderr)
//! ```
//!
//! Nothing grows: a pump reads no further while the sink is full. So if whoever reads our output stops reading, a child
//! that goes on writing waits in its own `write`, as it would if it had the terminal to itself; the supervisor does not
//! wait, nor do children that write to the other stream or nothing. Places in the sink are given in turn, so that
//! a child that floods does not keep others from being heard.

mod lines;
mod pump;
mod sink;
mod tail;

use std::{io::IsTerminal, io::Write, sync::Arc};

pub(super) use self::pump::Pumps;
use self::sink::Sink;
pub(super) use self::tail::Tail;
pub use self::tail::{Line, Stream};

/// How a child's lines look in our output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// `greeter/0 | the line`; a piece that goes on from the one before has `+` in place of `|`.
    #[default]
    Text,
    /// As [`Format::Text`], with the prefix in a colour of the replica's own.
    Coloured,
    /// `{"replica":"greeter/0","stream":"stdout","line":"the line"}`; a piece that goes on from the one before has
    /// `"continued":true`. Bytes that are not UTF-8 become U+FFFD.
    Json,
}

impl Format {
    /// [`Format::Coloured`] if stdout is a terminal and `NO_COLOR` is not set, else [`Format::Text`].
    pub fn for_terminal() -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if is_wanted && std::io::stdout().is_terminal() { Self::Coloured } else { Self::Text }
    }
}

/// Where the output of children goes. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    stdout: Arc<Sink>,
    stderr: Arc<Sink>,
}

impl Output {
    /// Children's stdout to ours, and their stderr to ours.
    pub fn new(format: Format) -> Self {
        Self::to(format, std::io::stdout(), std::io::stderr())
    }

    /// To other places, such as files. Each is written to by a thread of its own, so that it may block.
    pub fn to(format: Format, stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Self {
        Self { format, stdout: Arc::new(Sink::new("stdout", stdout)), stderr: Arc::new(Sink::new("stderr", stderr)) }
    }

    /// Waits until everything that was read from children so far is written. Meant for the end, within a time limit:
    /// it takes for ever if nobody reads our output.
    pub async fn flush(&self) {
        self.stdout.flush().await;
        self.stderr.flush().await;
    }

    fn sink(&self, stream: Stream) -> Arc<Sink> {
        match stream {
            Stream::Stdout => self.stdout.clone(),
            Stream::Stderr => self.stderr.clone(),
        }
    }
}
