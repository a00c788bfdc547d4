use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    rotation::Rotation,
    script::{Act, BACKENDS},
};

/// Into how many spans a run is cut for the history of each backend.
pub(super) const SPANS: u16 = 30;

/// How many calls a backend answered in each span of a run.
pub(super) type History = [u32; SPANS as usize];

/// The two ways to Evenkeel that the demo drives side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    /// A plain gRPC client with one connection to the proxy.
    Proxy,
    /// The channel in the client's own process.
    Channel,
}

impl Face {
    pub(super) const ALL: [Self; 2] = [Self::Proxy, Self::Channel];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Channel => "channel",
        }
    }
}

/// What a run is to do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plan {
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub(super) duration: Duration,
    /// Calls a second, both faces together.
    pub(super) rps: u32,
    pub(super) policy: String,
    pub(super) seed: u64,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// One call, as its caller saw it. Moments are counted from the start of the run.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) face: Face,
    pub(super) start: Duration,
    pub(super) end: Duration,
    /// The backend that answered, or why none did.
    pub(super) outcome: Result<usize, String>,
}

/// When an act was really performed: just before the fault, and just before the repair.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Performed {
    pub(super) fault: Option<Duration>,
    pub(super) repair: Option<Duration>,
}

/// All that has happened in a run so far: what the view shows and the summary adds up.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) plan: Plan,
    pub(super) acts: [Act; 3],
    pub(super) performed: [Performed; 3],
    pub(super) addresses: Vec<SocketAddr>,
    /// Every process that served, in the order of their starts.
    pub(super) pids: Vec<u32>,
    /// In the order of their ends, give or take a microsecond.
    pub(super) calls: Vec<Call>,
    failed: usize,
    rotations: [Rotation; 2],
    history: [[History; BACKENDS.len()]; 2],
}

impl Record {
    pub(super) fn new(plan: Plan, acts: [Act; 3], addresses: Vec<SocketAddr>, pids: Vec<u32>) -> Self {
        Self {
            plan,
            acts,
            performed: Default::default(),
            addresses,
            pids,
            calls: Vec::new(),
            failed: 0,
            rotations: Default::default(),
            history: Default::default(),
        }
    }

    pub(super) fn add(&mut self, call: Call) {
        if let Ok(backend) = call.outcome {
            let span = call.end.as_nanos() * u128::from(SPANS) / self.plan.duration.as_nanos();
            let last = usize::from(SPANS) - 1;
            self.history[call.face as usize][backend][usize::try_from(span).map_or(last, |span| span.min(last))] += 1;
        }
        self.failed += usize::from(call.outcome.is_err());
        self.calls.push(call);
    }

    /// How many calls failed, through either face.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Keeps the ids of those processes that are new.
    pub(super) fn note_processes(&mut self, pids: Vec<u32>) {
        let new: Vec<_> = pids.into_iter().filter(|pid| !self.pids.contains(pid)).collect();
        self.pids.extend(new);
    }

    /// The calls of a face that ended at `since` or later.
    pub(super) fn calls_since(&self, face: Face, since: Duration) -> impl Iterator<Item = &Call> {
        self.calls.iter().rev().take_while(move |call| call.end >= since).filter(move |call| call.face == face)
    }

    /// How many calls a backend answered in each span of the run.
    pub(super) fn history(&self, face: Face, backend: usize) -> &History {
        &self.history[face as usize][backend]
    }

    pub(super) fn rotation(&self, face: Face) -> &Rotation {
        &self.rotations[face as usize]
    }

    pub(super) fn rotation_mut(&mut self, face: Face) -> &mut Rotation {
        &mut self.rotations[face as usize]
    }
}

/// The record of the run that is on, with its clock.
#[derive(Clone, Debug)]
pub(super) struct Run {
    started: Instant,
    record: Arc<Mutex<Record>>,
}

impl Run {
    /// Starts the clock.
    pub(super) fn start(record: Record) -> Self {
        Self { started: Instant::now(), record: Arc::new(Mutex::new(record)) }
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The moment on the machine's clock that is `at` into the run.
    pub(super) fn instant(&self, at: Duration) -> tokio::time::Instant {
        (self.started + at).into()
    }

    /// The record; hold it for a moment only, every call ends in it.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        // A panic elsewhere leaves whole entries behind.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
