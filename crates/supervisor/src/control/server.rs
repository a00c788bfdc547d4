use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::AbortHandle,
};

use super::{Reply, Request};

/// The longest request, in bytes.
const LONGEST_REQUEST: u64 = 64 * 1024;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait after a failed accept, say for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A control socket that is served until this is dropped, which removes it.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    serving: AbortHandle,
}

/// What answers the requests that come over a control socket. Each connection has a clone.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Another supervisor has it.
    #[error("another supervisor answers at {}: stop it, or name another socket with `control`", .0.display())]
    Taken(PathBuf),
    /// The operating system refuses.
    #[error("cannot make the control socket {}: {error}; name another with `control`", .path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Control {
    /// Has `answer` answer the requests that come at `path`. A socket that is left there by a supervisor that has died is replaced.
    ///
    /// # Errors
    ///
    /// Where another supervisor answers there, or the socket cannot be made.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn serve(path: &Path, answer: impl Answer) -> Result<Self, ControlError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ControlError::Taken(path.to_owned()));
        }
        let listener = bind(path).map_err(|error| ControlError::System { path: path.to_owned(), error })?;
        let serving = tokio::spawn(accept(listener, answer)).abort_handle();
        Ok(Self { path: path.to_owned(), serving })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
        // If it is gone already, that is as it should be.
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Made under another name, so that nobody can connect before it is ours alone.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

async fn accept(listener: UnixListener, answer: impl Answer) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, answer.clone()))),
            Err(error) => {
                tracing::warn!(target: "evenkeel::supervisor", %error, "accepting on the control socket failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request after the other, until the other side hangs up or is silent for too long.
async fn converse(stream: UnixStream, answer: impl Answer) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut limited = (&mut read).take(LONGEST_REQUEST);
        let count = tokio::time::timeout(PATIENCE, limited.read_line(&mut line)).await??;
        if count == 0 {
            return Ok(());
        }
        let mut reply = serde_json::to_vec(&reply(&line, &answer).await)?;
        reply.push(b'\n');
        write.write_all(&reply).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
    }
}

async fn reply(line: &str, answer: &impl Answer) -> Reply {
    match serde_json::from_str(line) {
        Ok(request) => answer.answer(request).await,
        Err(error) => Reply::Refused { why: format!("no request: {error}") },
    }
}
