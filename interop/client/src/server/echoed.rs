//! The metadata that the server sends back. tonic's handlers cannot set the trailers of a call that ends well, so this is
//! done around them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tonic::{Status, body::Body as TonicBody, codegen::StdError};
use tower_service::Service;

static INITIAL: HeaderName = HeaderName::from_static("x-grpc-test-echo-initial");
static TRAILING: HeaderName = HeaderName::from_static("x-grpc-test-echo-trailing-bin");

/// A service whose responses carry these metadata of their requests: the first in initial metadata, the second in
/// trailers.
#[derive(Clone, Debug)]
pub(crate) struct Echoed<S>(pub(crate) S);

impl<S, A, B> Service<Request<A>> for Echoed<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body<Data = tonic::codegen::Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<TonicBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let asked = |name| request.headers().get(name).cloned();
        let (initial, trailing) = (asked(&INITIAL), asked(&TRAILING));
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            let headers = response.headers_mut();
            set(headers, &INITIAL, initial);
            // A response without a body has its trailers here.
            if headers.contains_key(Status::GRPC_STATUS) {
                set(headers, &TRAILING, trailing.clone());
            }
            Ok(response.map(|body| TonicBody::new(body.map_frame(move |frame| with(frame, trailing.clone())))))
        })
    }
}

fn with<D>(frame: Frame<D>, trailing: Option<HeaderValue>) -> Frame<D> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            set(&mut trailers, &TRAILING, trailing);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name.clone(), value);
    }
}
