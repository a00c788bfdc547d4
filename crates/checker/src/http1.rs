//! A kept HTTP/1.1 connection, asked by GET.

use std::{fmt, future::ready, ops::RangeInclusive, pin::Pin};

use bytes::Bytes;
use evenkeel_balance::{CheckOutcome, FailureKind};
use evenkeel_transport::Stream;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use crate::failure::{MAX_BODY, failed, of_status};

/// The connection.
pub(crate) struct Http1 {
    send: SendRequest<Empty<Bytes>>,
    wire: Wire,
    /// Whether a probe on it has been answered.
    is_kept: bool,
}

/// The working end. Over once it is done, and then not polled any more.
type Wire = Option<Pin<Box<Connection<TokioIo<Stream>, Empty<Bytes>>>>>;

/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 16 * 1024;

impl Http1 {
    pub(crate) async fn open(stream: Stream) -> Result<Self, CheckOutcome> {
        let opened = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
        let (send, connection) = opened.map_err(|error| failed(FailureKind::Closed, error.to_string()))?;
        Ok(Self { send, wire: Some(Box::pin(connection)), is_kept: false })
    }

    /// Itself, if another probe can be sent on it. What came while nobody looked is taken in first.
    pub(crate) async fn if_kept(mut self) -> Option<Self> {
        tokio::select! {
            biased;
            () = self.lost() => None,
            () = ready(()) => Some(self),
        }
    }

    /// Waits until the peer has closed it.
    pub(crate) async fn lost(&mut self) {
        if let Some(wire) = &mut self.wire {
            // Why does not matter: it carries nothing.
            let _ = wire.await;
        }
        self.wire = None;
    }

    /// GET.
    pub(crate) async fn get(&mut self, head: Request<()>, passes: &RangeInclusive<u16>) -> CheckOutcome {
        let Self { send, wire, .. } = self;
        let status = drive(wire, get(send, head)).await;
        match status {
            Ok(status) => {
                self.is_kept = true;
                of_status(status, passes)
            }
            // The peer may close a kept connection at any time, so also while a request is on its way.
            Err(error) if self.is_kept && is_lost(&error) => CheckOutcome::Drained,
            Err(error) if is_lost(&error) => {
                failed(FailureKind::Closed, format!("the connection ended before the answer: {}", words(&error)))
            }
            Err(error) => {
                failed(FailureKind::Protocol, format!("{}; does it speak HTTP/1.1 on this port?", words(&error)))
            }
        }
    }
}

/// Works the connection while `work` runs.
async fn drive<T>(wire: &mut Wire, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Some(connection) = wire {
        tokio::select! {
            biased;
            done = &mut work => return done,
            // The request hears of the error.
            _ = connection => {}
        }
        *wire = None;
    }
    work.await
}

/// The status, after a body that is read as far as it is short.
async fn get(send: &mut SendRequest<Empty<Bytes>>, head: Request<()>) -> hyper::Result<u16> {
    send.ready().await?;
    let mut response = send.send_request(head.map(|()| Empty::new())).await?;
    let mut read = 0;
    while read <= MAX_BODY
        && let Some(frame) = response.body_mut().frame().await
    {
        read += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(response.status().as_u16())
}

/// Whether the connection ended, rather than that the answer was no HTTP.
fn is_lost(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || cause::<std::io::Error>(error).is_some()
}

fn cause<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    std::error::Error::source(error)?.downcast_ref()
}

fn words(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("is_kept", &self.is_kept).finish_non_exhaustive()
    }
}
