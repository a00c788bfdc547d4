use crate::{Measurement, Value};

/// How a connection was lost, in the terms of gRFC A94.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The peer said that it is leaving, with this HTTP/2 error code.
    GoAway(u32),
    /// The peer, or something on the way to it, reset the connection.
    Reset,
    /// It was silent for too long.
    TimedOut,
    /// This machine gave it up.
    Aborted,
    /// The socket failed in another way.
    Socket,
    /// Whatever else there is: the peer just closed it, say.
    Unknown,
}

impl Loss {
    /// The value of the label `grpc.disconnect_error`.
    pub fn label(self) -> String {
        match self {
            Self::GoAway(code) => format!("GOAWAY {}", error_name(code)),
            Self::Reset => "connection reset".to_owned(),
            Self::TimedOut => "connection timed out".to_owned(),
            Self::Aborted => "connection aborted".to_owned(),
            Self::Socket => "socket error".to_owned(),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// The label of a connection that nobody wants any more.
const SHUTDOWN: &str = "subchannel shutdown";

/// An HTTP/2 error code by its name in RFC 9113. Codes without one share a name, so that a peer cannot make up labels.
fn error_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("UNKNOWN")
}

/// An attempt has made its connection (gRFC A94).
pub(crate) fn opened() -> [Measurement; 2] {
    let succeeded = Measurement::new("grpc.subchannel.connection_attempts_succeeded", Value::Count(1));
    [succeeded, open_connections(1.0)]
}

/// An attempt has failed.
pub(crate) fn failed() -> Measurement {
    Measurement::new("grpc.subchannel.connection_attempts_failed", Value::Count(1))
}

/// A connection has ended; `None` where it was closed because nobody wants it any more.
pub(crate) fn closed(loss: Option<Loss>) -> [Measurement; 2] {
    let why = loss.map_or_else(|| SHUTDOWN.to_owned(), Loss::label);
    let disconnections = Measurement::new("grpc.subchannel.disconnections", Value::Count(1));
    [disconnections.with("grpc.disconnect_error", why), open_connections(-1.0)]
}

fn open_connections(change: f64) -> Measurement {
    Measurement::new("grpc.subchannel.open_connections", Value::Change(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a94_labels_are_those_of_the_list_and_no_peer_can_add_to_them() {
        assert_eq!(Loss::GoAway(0).label(), "GOAWAY NO_ERROR");
        assert_eq!(Loss::GoAway(11).label(), "GOAWAY ENHANCE_YOUR_CALM");
        assert_eq!(Loss::GoAway(13).label(), "GOAWAY HTTP_1_1_REQUIRED");
        assert_eq!(
            (Loss::GoAway(14).label(), Loss::GoAway(u32::MAX).label()),
            (Loss::GoAway(99).label(), "GOAWAY UNKNOWN".to_owned())
        );
        assert_eq!(Loss::TimedOut.label(), "connection timed out");
    }
}
