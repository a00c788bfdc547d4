use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::Message;
use tonic::metadata::BinaryMetadataValue;
use tonic::{Code, Status};

use crate::counts::Running;
use crate::{CallRecorder, LoadReport, Recorder};

/// The trailer's name (gRFC A51).
static TRAILER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Calls that are about the server itself: they are no load, and may stay open for as long as it runs.
const UNCOUNTED: [&str; 2] = ["/xds.service.orca.v3.OpenRcaService/", "/grpc.health.v1.Health/"];

/// A layer for tonic's `Server::builder().layer(…)`: counts calls, gives each a [`CallRecorder`], and attaches the load
/// report to its trailers, unless that is empty. Bodies pass through as they come.
///
/// Calls of `grpc.health.v1` and of the reporting service itself are left alone.
#[derive(Clone, Debug)]
pub struct Layer {
    recorder: Recorder,
}

impl Layer {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { inner, recorder: self.recorder.clone() }
    }
}

/// What [`Layer`] makes of a service.
#[derive(Clone, Debug)]
pub struct Service<S> {
    inner: S,
    recorder: Recorder,
}

impl<S, A, B> tower_service::Service<http::Request<A>> for Service<S>
where
    S: tower_service::Service<http::Request<A>, Response = http::Response<B>>,
{
    type Response = http::Response<ReportingBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<A>) -> Self::Future {
        let path = request.uri().path();
        let counted = !UNCOUNTED.iter().any(|service| path.starts_with(service));
        let call = counted.then(|| Call::begin(&self.recorder, request.extensions_mut()));
        ResponseFuture { inner: self.inner.call(request), call }
    }
}

/// A call that runs.
#[derive(Debug)]
struct Call {
    running: Running,
    recorder: CallRecorder,
    server: Recorder,
}

impl Call {
    fn begin(server: &Recorder, extensions: &mut http::Extensions) -> Self {
        let recorder = CallRecorder::default();
        extensions.insert(recorder.clone());
        Self { running: server.begin_call(), recorder, server: server.clone() }
    }

    /// Ends the call, which has these trailers, and attaches the report to them.
    fn end(mut self, trailers: &mut HeaderMap) {
        let code = Status::from_header_map(trailers).map_or(Code::Unknown, |status| status.code());
        self.running.ended_with(code);
        drop(self.running);
        let report = self.server.report_of(&self.recorder);
        if report != LoadReport::default() {
            trailers.insert(TRAILER.clone(), encoded(&report));
        }
    }

    /// Ends a call that has no trailers, as only those have that go wrong below gRPC.
    fn fail(mut self) {
        self.running.ended_with(Code::Unknown);
    }
}

/// As gRPC encodes binary metadata.
fn encoded(report: &LoadReport) -> HeaderValue {
    let value = BinaryMetadataValue::from_bytes(&report.encode_to_vec());
    HeaderValue::from_bytes(value.as_encoded_bytes()).expect("base64 is text")
}

pin_project! {
    /// The response to come.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
{
    type Output = Result<http::Response<ReportingBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.inner.poll(cx));
        let mut call = this.call.take();
        Poll::Ready(match answered {
            Ok(mut response) => {
                if response.headers().contains_key(Status::GRPC_STATUS)
                    && let Some(call) = call.take()
                {
                    call.end(response.headers_mut());
                }
                Ok(response.map(|inner| ReportingBody { inner, call }))
            }
            Err(error) => {
                if let Some(call) = call {
                    call.fail();
                }
                Err(error)
            }
        })
    }
}

pin_project! {
    /// A response's body, with the load report in its trailers.
    #[derive(Debug)]
    pub struct ReportingBody<B> {
        #[pin]
        inner: B,
        // None once the trailers have been seen, and if there is nothing to report.
        call: Option<Call>,
    }
}

impl<B: Body> Body for ReportingBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let mut frame = ready!(this.inner.poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut()
                    && let Some(call) = this.call.take()
                {
                    call.end(trailers);
                }
            }
            Some(Err(_)) | None => this.call.take().into_iter().for_each(Call::fail),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
