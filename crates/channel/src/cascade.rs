//! Deadlines that cascade: what a server has left to answer a call bounds the calls that it makes for it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{task::futures::TaskLocalFuture, time::Instant};
use tower_layer::Layer;
use tower_service::Service;

use crate::deadline;

tokio::task_local! {
    /// The deadline of the call that this task is answering; `None` where it has none.
    static DEADLINE: Option<Instant>;
}

/// The deadline that calls made by this task inherit.
pub(crate) fn inherited() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// A tower layer for tonic's server: calls that a handler makes on a [`Channel`](crate::Channel) get the deadline of
/// the call that it is answering, if that is sooner than their own.
///
/// ```no_run
/// # async fn serve(service: tonic::service::Routes, address: std::net::SocketAddr) -> Result<(), tonic::transport::Error> {
/// tonic::transport::Server::builder()
///     .layer(evenkeel_channel::DeadlineLayer::new())
///     .add_routes(service)
///     .serve(address)
///     .await
/// # }
/// ```
///
/// It follows the handler's own task, and the task that reads its streamed response; work that a handler spawns is on
/// its own, unless it is wrapped in [`DeadlineLayer::carry`].
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer {}

impl DeadlineLayer {
    /// The layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// `work` with the deadline of the task that calls this, for work that is handed to another task.
    pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
        DEADLINE.scope(inherited(), work)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = WithDeadline<S>;

    fn layer(&self, inner: S) -> WithDeadline<S> {
        WithDeadline { inner }
    }
}

/// A service whose calls know their deadline: see [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct WithDeadline<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for WithDeadline<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<DeadlineBody<B>>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let deadline = deadline::timeout(request.headers()).map(|timeout| Instant::now() + timeout);
        // The service may make calls before its future is first polled.
        let answer = DEADLINE.sync_scope(deadline, || self.inner.call(request));
        DeadlineFuture { answer: DEADLINE.scope(deadline, answer), deadline }
    }
}

pin_project! {
    /// The response of a [`WithDeadline`] service.
    pub struct DeadlineFuture<F> {
        #[pin]
        answer: TaskLocalFuture<Option<Instant>, F>,
        deadline: Option<Instant>,
    }
}

impl<F, B, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<DeadlineBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answer.poll(cx));
        Poll::Ready(response.map(|response| response.map(|body| DeadlineBody { body, deadline: *this.deadline })))
    }
}

impl<F> std::fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadlineFuture").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response, whose stream may make calls too.
    #[derive(Debug, Default)]
    pub struct DeadlineBody<B> {
        #[pin]
        body: B,
        deadline: Option<Instant>,
    }
}

impl<B> DeadlineBody<B> {
    /// The body alone.
    pub fn into_inner(self) -> B {
        self.body
    }
}

impl<B: Body> Body for DeadlineBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        DEADLINE.sync_scope(*this.deadline, || this.body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
