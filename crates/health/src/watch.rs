use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use evenkeel_proto::health::HealthCheckResponse;
use tokio_stream::Stream;
use tonic::Status;

use crate::Reporter;
use crate::caller::Caller;
use crate::registry::{Refusal, Watcher};

/// The replies of one `Watch`: the current status, then each change. Ends with UNAVAILABLE when the server drains.
pub struct WatchStream {
    reporter: Reporter,
    /// None once the watch has ended.
    watcher: Option<Watcher>,
}

impl WatchStream {
    pub(crate) fn new(reporter: Reporter, service: &str, caller: Option<Caller>) -> Result<Self, Refusal> {
        let watcher = reporter.lock().watch(service, caller)?;
        Ok(Self { reporter, watcher: Some(watcher) })
    }

    fn leave(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            self.reporter.lock().unwatch(&watcher);
        }
    }
}

impl Stream for WatchStream {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { reporter, watcher } = &mut *self;
        let Some(watcher) = watcher else { return Poll::Ready(None) };
        let polled = reporter.lock().poll_watch(watcher, cx);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(status)) => Poll::Ready(Some(Ok(HealthCheckResponse { status: status.number() }))),
            Poll::Ready(None) => {
                self.leave();
                Poll::Ready(Some(Err(Status::unavailable("the server is draining: watch another backend"))))
            }
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("watcher", &self.watcher).finish_non_exhaustive()
    }
}
