use std::{
    io::{self, Write},
    time::Duration,
};

use super::{record::Face, rotation::Transition, script::BACKENDS};

/// Tells a run line by line, where there is no live view.
#[derive(Clone, Copy, Debug)]
pub(super) enum Narrator {
    /// A view shows it all.
    Silent,
    Stdout,
    /// Standard output is kept for the JSON.
    Stderr,
}

impl Narrator {
    pub(super) fn transition(self, face: Face, transition: &Transition) {
        let Transition { at, backend, ready, reason } = transition;
        let turn = if *ready { "in " } else { "out" };
        self.say(*at, &format!("  {:<8} {} {turn}  {reason}", face.name(), BACKENDS[*backend]));
    }

    pub(super) fn say(self, at: Duration, text: &str) {
        let line = format!("{:7.3} s  {text}\n", at.as_secs_f64());
        // A reader that has gone away ends the telling, not the run.
        let _ = match self {
            Self::Silent => Ok(()),
            Self::Stdout => io::stdout().write_all(line.as_bytes()),
            Self::Stderr => io::stderr().write_all(line.as_bytes()),
        };
    }
}
