//! The seam between calls and connections: what a connection can do, in words that name no HTTP/2 library.
//!
//! [`dial`] opens a byte stream, with TLS where asked, [`h2`] speaks HTTP/2 on it; above this module there are only [`Connection`]s that
//! open streams, and the [`Outgoing`] and [`Incoming`] halves of those.

mod activity;
mod dial;
mod error;
mod goaway;
mod h2;
mod opened;
mod queue;
mod settings;
mod streams;
mod window;

pub(crate) use self::h2::{Connection, Incoming, Line, News, Outgoing, Permit, Purpose, handshake};
pub(crate) use dial::{Dialer, Ends, Stream};
pub(crate) use error::StreamError;
pub(crate) use queue::StreamQueue;
pub(crate) use settings::{LineSettings, Windows};
