use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{Reply, Request};

/// Why a supervisor did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens there.
    #[error("no supervisor answers at {}: {error}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It went away before it answered.
    #[error("the supervisor ended before it answered: {0}")]
    Lost(#[from] io::Error),
    /// It answered something else.
    #[error("the supervisor's answer is none that this version knows: {0}")]
    Unknown(#[from] serde_json::Error),
}

/// Asks the supervisor whose control socket is at `path`.
///
/// # Errors
///
/// Where nobody answers. That an order is refused is an answer.
pub async fn ask(path: &Path, request: &Request) -> Result<Reply, AskError> {
    let connected = UnixStream::connect(path).await;
    let mut stream = connected.map_err(|error| AskError::Connect { path: path.to_owned(), error })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).await?;
    if reply.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(serde_json::from_str(&reply)?)
}
