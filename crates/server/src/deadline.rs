//! The caller's deadline, kept by the server: a call that its caller has given up stops (gRPC's `grpc-timeout`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// How long the caller waits; `None` without end.
///
/// # Errors
/// A response, when the header is not as gRPC has it.
pub(crate) fn timeout<B>(request: &Request<B>) -> Result<Option<Duration>, Status> {
    let Some(value) = request.headers().get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse);
    parsed
        .map(Some)
        .ok_or_else(|| Status::internal(format!("the grpc-timeout {value:?} is not one to eight digits and a unit")))
}

/// `TimeoutValue TimeoutUnit` of gRPC's protocol: at most eight digits.
fn parse(value: &str) -> Option<Duration> {
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if !(1..=8).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn exceeded() -> Status {
    Status::deadline_exceeded("the caller's deadline has passed at the server")
}

pin_project! {
    /// A response under a deadline.
    #[project = WithinProj]
    pub(crate) enum Within<F> {
        Running { #[pin] call: F, deadline: Option<Pin<Box<Sleep>>> },
        Refused { status: Option<Status> },
    }
}

impl<F> Within<F> {
    pub(crate) fn new(call: F, timeout: Option<Duration>) -> Self {
        Self::Running { call, deadline: timeout.map(|timeout| Box::pin(sleep(timeout))) }
    }

    pub(crate) fn refused(status: Status) -> Self {
        Self::Refused { status: Some(status) }
    }
}

impl<F, B, E> Future for Within<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<WithinBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            WithinProj::Running { call, deadline } => {
                if let Poll::Ready(response) = call.poll(cx) {
                    let deadline = deadline.take();
                    return Poll::Ready(response.map(|response| response.map(|body| WithinBody::open(body, deadline))));
                }
                let Some(deadline) = deadline else { return Poll::Pending };
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Ok(exceeded().into_http().map(|()| WithinBody::none())))
            }
            WithinProj::Refused { status } => {
                let status = status.take().unwrap_or_else(|| Status::internal("polled after its end"));
                let mut response = status.into_http().map(|()| WithinBody::none());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                Poll::Ready(Ok(response))
            }
        }
    }
}

pin_project! {
    /// A response's body under the call's deadline; it ends with `DEADLINE_EXCEEDED` in its trailers.
    pub(crate) struct WithinBody<B> {
        #[pin]
        body: Option<B>,
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<B> WithinBody<B> {
    fn open(body: B, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        Self { body: Some(body), deadline }
    }

    fn none() -> Self {
        Self { body: None, deadline: None }
    }
}

impl<B: Body> Body for WithinBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = body.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Some(deadline) = this.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        this.body.set(None);
        let mut trailers = HeaderMap::new();
        // A status of ours has only a message that is valid in a header.
        if exceeded().add_header(&mut trailers).is_err() {
            trailers.clear();
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // Under a deadline the body may be cut short, so its length is not promised.
        match (&self.body, &self.deadline) {
            (Some(body), None) => body.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse("4m"), Some(Duration::from_millis(4)));
        assert_eq!(parse("5u"), Some(Duration::from_micros(5)));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        for broken in ["", "1", "S", "-1S", "+1S", "1x", "123456789S", "1.5S", "1é", " 1S"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }
}
