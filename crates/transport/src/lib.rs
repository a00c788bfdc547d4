//! Connections to gRPC servers: the seam between whoever makes calls and the network.
//!
//! A [`Dialer`] opens a byte stream: to an address or a Unix socket, through an HTTP proxy ([`ConnectProxy`]) and with TLS
//! where asked. [`handshake`] speaks HTTP/2 on it: the [`Connection`] opens streams, each an [`Outgoing`] and an
//! [`Incoming`] half, and the [`Line`] is its working end, to be driven by a task. Nothing above this crate names a type of
//! the HTTP/2 library.

mod activity;
mod clock;
mod connect_proxy;
mod dial;
mod error;
mod goaway;
mod h2;
mod line;
mod opened;
mod queue;
mod server_stream;
mod settings;
mod socket;
mod streams;
mod sync;
#[cfg(feature = "tls")]
mod tls;
mod window;
pub mod wire_status;

pub use self::h2::{Connection, Incoming, Outgoing, Permit, Purpose, handshake};
pub use clock::Clock;
pub use connect_proxy::{ConnectProxy, ConnectProxyError, Tunnel};
pub use dial::{ByteStream, DialError, Dialer, Ends, Socket, Stream};
pub use error::StreamError;
pub use line::{Line, News};
pub use queue::{Place, StreamQueue, Turn};
pub use server_stream::ServerStream;
pub use settings::{LineSettings, Windows};
pub use socket::{SocketReport, StreamCounts};
#[cfg(feature = "tls")]
pub use tls::{Handshake, Protocol, Secure, ServerTls, Tls, TlsError};
