//! One gRPC call on a connection: metadata, a deadline, gzip, messages and the status.

use std::{
    future::poll_fn,
    io::{Read, Write},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use evenkeel_balance::{Code, Status};
use evenkeel_transport::{Incoming, Outgoing, Purpose, StreamError, wire_status};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use percent_encoding::percent_decode;
use prost::Message;

use super::server::Server;

/// What is sent with each call.
#[derive(Clone, Debug)]
pub(super) struct CallSettings {
    pub(super) user_agent: HeaderValue,
    pub(super) metadata: Vec<(HeaderName, HeaderValue)>,
    pub(super) gzip: bool,
}

/// The longest message that is taken, in bytes. A health reply has two, a list of services thousands.
const LONGEST: usize = 4 << 20;
/// The flag for compression and the length.
const PREFIX: usize = 5;

/// A call that has begun.
#[derive(Debug)]
pub(super) struct Call {
    incoming: Incoming,
    /// Kept, because a stream is cancelled once a half of it is dropped too early.
    _outgoing: Outgoing,
    peer: String,
    /// The head of the response, which holds the status where there is nothing else.
    head: HeaderMap,
    partial: BytesMut,
}

impl Server {
    /// Calls `path` with one message, and takes one in return. The server hears of `deadline`; keeping it is the
    /// caller's.
    pub(super) async fn unary<Reply: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
        settings: &CallSettings,
        deadline: Duration,
    ) -> Result<Reply, Status> {
        let mut call = self.call(path, message, settings, Some(deadline)).await?;
        let reply = call.next().await?;
        // What follows can only be the status.
        while call.next::<Reply>().await?.is_some() {}
        reply.ok_or_else(|| Status::new(Code::Internal, "the call ended well and without a reply"))
    }

    /// Calls `path` with one message.
    pub(super) async fn call(
        &self,
        path: &'static str,
        message: &impl Message,
        settings: &CallSettings,
        deadline: Option<Duration>,
    ) -> Result<Call, Status> {
        let peer = self.connection.peer().to_string();
        let broken = |error: StreamError| error.status(&peer);
        let head = self.head(path, settings, deadline)?;
        let mut framed = framed(&message.encode_to_vec(), settings.gzip)?;
        let (mut outgoing, mut incoming) = self.connection.open(head, false, Purpose::Watch).await.map_err(broken)?;
        poll_fn(|cx| outgoing.poll_send(cx, &mut framed, true)).await.map_err(broken)?;
        let head = poll_fn(|cx| incoming.poll_head(cx)).await.map_err(broken)?;
        let told = wire_status::code(head.headers());
        if let Some(code) = wire_status::of_head(head.status(), head.headers()).filter(|_| told.is_none()) {
            return Err(Status::new(code, format!("the server answers with the HTTP status {}", head.status())));
        }
        Ok(Call { incoming, _outgoing: outgoing, peer, head: head.into_parts().0.headers, partial: BytesMut::new() })
    }

    fn head(&self, path: &str, settings: &CallSettings, deadline: Option<Duration>) -> Result<Request<()>, Status> {
        let uri: Result<Uri, _> = format!("{}{path}", self.origin).parse();
        let uri = uri.map_err(|error| Status::new(Code::Internal, format!("{:?}: {error}", self.origin)))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::USER_AGENT, settings.user_agent.clone());
        if let Some(deadline) = deadline {
            headers.insert("grpc-timeout", timeout(deadline));
        }
        if settings.gzip {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
            headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
        }
        headers.extend(settings.metadata.iter().map(|(name, value)| (Some(name.clone()), value.clone())));
        Ok(request)
    }
}

impl Call {
    /// The next message; `None` once the call has ended well.
    pub(super) async fn next<Reply: Message + Default>(&mut self) -> Result<Option<Reply>, Status> {
        loop {
            if let Some(message) = self.take_message()? {
                let unread = |error| Status::new(Code::Internal, format!("a message is not understood: {error}"));
                return Reply::decode(message).map(Some).map_err(unread);
            }
            match poll_fn(|cx| self.incoming.poll_data(cx)).await {
                Some(Ok(data)) => self.partial.put(data),
                Some(Err(error)) => return Err(error.status(&self.peer)),
                None => return self.end().await.map(|()| None),
            }
        }
    }

    /// A whole message, if there is one.
    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut prefix) = self.partial.get(..PREFIX) else { return Ok(None) };
        let (flag, length) = (prefix.get_u8(), prefix.get_u32() as usize);
        if length > LONGEST {
            return Err(Status::new(Code::ResourceExhausted, format!("a message of {length} bytes is too long")));
        }
        if self.partial.len() < PREFIX + length {
            return Ok(None);
        }
        self.partial.advance(PREFIX);
        let message = self.partial.split_to(length).freeze();
        match (flag, self.head.get("grpc-encoding").map(HeaderValue::as_bytes)) {
            (0, _) => Ok(Some(message)),
            (1, Some(b"gzip")) => inflated(&message).map(Some),
            (_, encoding) => {
                let encoding = encoding.unwrap_or(b"nothing").escape_ascii();
                Err(Status::new(
                    Code::Internal,
                    format!("a message is compressed by {encoding}, which was not offered"),
                ))
            }
        }
    }

    async fn end(&mut self) -> Result<(), Status> {
        if !self.partial.is_empty() {
            return Err(Status::new(Code::Internal, "the call ended within a message"));
        }
        let trailers = poll_fn(|cx| self.incoming.poll_trailers(cx)).await.map_err(|error| error.status(&self.peer))?;
        let told = trailers.as_ref().unwrap_or(&self.head);
        match wire_status::code(told) {
            Some(Code::Ok) => Ok(()),
            Some(code) => Err(Status::new(code, words(told))),
            None => Err(Status::new(Code::Unknown, "the call ended without a status")),
        }
    }
}

/// The server's words, percent-decoded.
fn words(headers: &HeaderMap) -> String {
    let encoded = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    percent_decode(encoded).decode_utf8_lossy().into_owned()
}

fn framed(message: &[u8], gzip: bool) -> Result<Bytes, Status> {
    let message = if gzip { deflated(message)? } else { message.to_vec() };
    let length = u32::try_from(message.len());
    let length = length.map_err(|_| Status::new(Code::ResourceExhausted, "the request has 4 GiB or more"))?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(u8::from(gzip));
    framed.put_u32(length);
    framed.put_slice(&message);
    Ok(framed.freeze())
}

fn deflated(message: &[u8]) -> Result<Vec<u8>, Status> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let whole = encoder.write_all(message).and_then(|()| encoder.finish());
    whole.map_err(|error| Status::new(Code::Internal, format!("gzip: {error}")))
}

fn inflated(message: &[u8]) -> Result<Bytes, Status> {
    let mut inflated = Vec::new();
    let limit = LONGEST as u64 + 1;
    let read = GzDecoder::new(message).take(limit).read_to_end(&mut inflated);
    match read {
        Ok(length) if length > LONGEST => Err(Status::new(Code::ResourceExhausted, "a message inflates beyond 4 MiB")),
        Ok(_) => Ok(inflated.into()),
        Err(error) => Err(Status::new(Code::Internal, format!("a message is no gzip: {error}"))),
    }
}

/// A time-out as the wire has it: at most eight digits and a unit.
fn timeout(duration: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units = [(duration.as_nanos(), 'n'), (duration.as_micros(), 'u'), (duration.as_millis(), 'm')];
    let (number, unit) = units
        .into_iter()
        .find(|(number, _)| *number <= MOST)
        .unwrap_or((u128::from(duration.as_secs()).min(MOST), 'S'));
    HeaderValue::try_from(format!("{number}{unit}")).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_eight_digits_at_most() {
        for (duration, text) in [
            (Duration::from_nanos(7), "7n"),
            (Duration::from_secs(1), "1000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(timeout(duration), text);
        }
    }

    #[test]
    fn gzip_goes_both_ways_and_is_bounded() {
        let framed = framed(b"hello", true).unwrap();
        assert_eq!(framed[0], 1);
        assert_eq!(inflated(&framed[PREFIX..]).unwrap(), &b"hello"[..]);
        assert_eq!(inflated(b"hello").unwrap_err().code, Code::Internal);
        let bomb = deflated(&vec![0; LONGEST + 1]).unwrap();
        assert_eq!(inflated(&bomb).unwrap_err().code, Code::ResourceExhausted);
    }
}
