use std::{fmt, sync::Arc};

/// Which replica of which service: `greeter/0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaName {
    /// The service's name.
    pub service: Arc<str>,
    /// Its number, from 0.
    pub number: u32,
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.number)
    }
}

/// One start of a replica; no two are alike in a supervisor's life, and later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

/// Numbers the starts.
#[derive(Debug, Default)]
pub(super) struct Runs(u64);

impl Runs {
    pub(super) fn next(&mut self) -> RunId {
        self.0 += 1;
        RunId(self.0)
    }
}
