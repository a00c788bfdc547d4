mod document;

use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use crate::{FailureKind, Options, Outcome, Resolution, ResolveError, Resolver, Updates};

/// After this time, a change of a file changes the time of its last change too: file systems count in steps.
const SETTLED: Duration = Duration::from_secs(2);

/// Not to ask the file system without a pause.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// Reads endpoints from a file whenever it changes.
///
/// It looks at the file at an interval rather than being told: that also works across container mounts, network file
/// systems and symbolic links that are switched, and half a second is early enough. Requests to resolve again change
/// nothing.
pub(crate) struct File {
    path: PathBuf,
    interval: Duration,
    /// The file that was read last, if it need not be read again while it looks the same.
    read: Option<Stamp>,
    last: Option<Outcome>,
}

impl File {
    pub(crate) fn new(path: PathBuf, options: &Options) -> Self {
        Self { path, interval: options.file_interval.max(SHORTEST_INTERVAL), read: None, last: None }
    }

    /// What the file says, or `None` where it is the one that was read.
    async fn look(&mut self) -> Option<Outcome> {
        match self.changed().await {
            Ok(false) => None,
            Ok(true) => Some(self.read().await),
            Err(error) => Some(Err(self.unreadable(&error))),
        }
    }

    async fn changed(&mut self) -> io::Result<bool> {
        let metadata = tokio::fs::metadata(&self.path).await.inspect_err(|_| self.read = None)?;
        if !metadata.is_file() {
            self.read = None;
            return Err(io::Error::other("it is no regular file"));
        }
        // Taken before the file is read: what is read is as new as the stamp, or newer.
        let stamp = Stamp::of(&metadata)?;
        let is_same = self.read.as_ref() == Some(&stamp);
        self.read = stamp.is_settled().then_some(stamp);
        Ok(!is_same)
    }

    async fn read(&self) -> Outcome {
        let json = tokio::fs::read(&self.path).await.map_err(|error| self.unreadable(&error))?;
        Resolution::from_json(&json)
            .map_err(|error| ResolveError::new(error.kind, format!("{}: {}", self.described(), error.message)))
    }

    fn unreadable(&self, error: &io::Error) -> ResolveError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => FailureKind::NotFound,
            _ => FailureKind::Unreachable,
        };
        ResolveError::new(kind, format!("{}: cannot read it: {error}", self.described()))
    }

    fn described(&self) -> String {
        format!("endpoints in the file `{}`", self.path.display())
    }

    fn tell(&mut self, outcome: Outcome, updates: &Updates) {
        if self.last.as_ref() != Some(&outcome) {
            log(&self.path, &outcome);
            self.last = Some(outcome.clone());
            updates.send(outcome);
        }
    }
}

impl Resolver for File {
    fn run(mut self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            loop {
                if let Some(outcome) = self.look().await {
                    self.tell(outcome, &updates);
                }
                tokio::time::sleep(self.interval).await;
            }
        })
    }
}

fn log(path: &Path, outcome: &Outcome) {
    let file = path.display();
    match outcome {
        Ok(resolution) => info!(%file, endpoints = resolution.endpoints.len(), "endpoints read"),
        Err(error) => warn!(%error, "the last endpoints stay in use"),
    }
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, PartialEq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    /// Another file that was moved to the same place.
    identity: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self { modified: metadata.modified()?, length: metadata.len(), identity: identity(metadata) })
    }

    /// Whether each later change will show.
    fn is_settled(&self) -> bool {
        SystemTime::now().duration_since(self.modified).is_ok_and(|age| age > SETTLED)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}
