//! One gRPC call over the h2 crate, and everything of its reply checked.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::Request;
use tokio::{net::TcpStream, task::spawn_local};

/// The method that is called: a backend answers any.
const METHOD: &str = "/evenkeel.bench.Echo/Call";
/// gRPC's prefix of a message, in bytes.
const PREFIX: usize = 5;
/// The length of a request's message, in bytes.
const REQUEST: usize = 34;

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Messages of a reply
    #[arg(long, default_value_t = 1)]
    messages: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 32)]
    bytes: u32,
}

impl Shape {
    /// The body of a request for such a reply: both numbers, then filling.
    fn request(self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(REQUEST).expect("it is short"));
        body.put_u32(self.messages);
        body.put_u32(self.bytes);
        body.resize(PREFIX + REQUEST, b'x');
        body.freeze()
    }

    /// The bytes of a whole reply's body.
    fn reply(self) -> u64 {
        u64::from(self.messages) * (PREFIX as u64 + u64::from(self.bytes))
    }
}

/// Makes calls of one shape at one server.
pub(crate) struct Caller {
    server: SocketAddr,
    uri: String,
    request: Bytes,
    reply: u64,
}

/// A connection on which calls can be made.
pub(crate) type Connection = SendRequest<Bytes>;

/// What a reply that was right tells.
pub(crate) struct Answer {
    pub(crate) backend: Ipv4Addr,
    /// The length of its body.
    pub(crate) bytes: u64,
}

impl Caller {
    pub(crate) fn new(server: SocketAddr, shape: Shape) -> Self {
        let uri = format!("http://{server}{METHOD}");
        Self { server, uri, request: shape.request(), reply: shape.reply() }
    }

    /// Opens a connection; both sides' settings are known and in force when it is there.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let socket = TcpStream::connect(self.server).await.with_context(|| format!("cannot reach {}", self.server))?;
        socket.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder.initial_window_size(8 << 20).initial_connection_window_size(64 << 20);
        let (connection, mut work) = builder.handshake(socket).await.context("the HTTP/2 handshake failed")?;
        let mut pings = work.ping_pong().context("there is no other user of pings")?;
        spawn_local(work);
        pings.ping(h2::Ping::opaque()).await.context("the first ping was not answered")?;
        Ok(connection)
    }

    /// Makes a call, and checks its reply. The error is why the call counts as failed.
    pub(crate) async fn call(&self, connection: &Connection) -> Result<Answer, String> {
        let mut connection = connection.clone().ready().await.map_err(describe)?;
        let request = Request::post(&self.uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (reply, mut body) = connection.send_request(request, false).map_err(describe)?;
        body.send_data(self.request.clone(), true).map_err(describe)?;
        let reply = reply.await.map_err(describe)?;
        if reply.status() != 200 {
            return Err(format!("HTTP {}", reply.status().as_u16()));
        }
        let early = reply.headers().get("grpc-status").cloned();
        let mut body = reply.into_body();
        let mut start = BytesMut::with_capacity(16);
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data.map_err(describe)?;
            body.flow_control().release_capacity(data.len()).map_err(describe)?;
            bytes += data.len() as u64;
            start.extend_from_slice(&data[..data.len().min(PREFIX + 4 - start.len())]);
        }
        let trailers = body.trailers().await.map_err(describe)?;
        match trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).or(early.as_ref()) {
            None => return Err("no grpc-status".into()),
            Some(status) if status != "0" => {
                return Err(format!("grpc-status {}", String::from_utf8_lossy(status.as_bytes())));
            }
            Some(_) => {}
        }
        if bytes != self.reply {
            return Err(format!("a reply of {bytes} bytes"));
        }
        start.advance(PREFIX);
        Ok(Answer { backend: Ipv4Addr::from_bits(start.get_u32()), bytes })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn describe(error: h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_reset() => format!("reset {reason:?}"),
        Some(reason) => format!("connection ended {reason:?}"),
        None => "connection lost".into(),
    }
}
