use evenkeel_balance::{Code, Status};

/// How a stream ended without the status that its server owed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The connection was gone before anything of the stream was written: no server has seen the call.
    #[error("the connection closed before the call was sent")]
    NotSent,
    /// HTTP/2 forbids the request, on any connection: a header such as `connection`, say.
    #[error("the request cannot be sent: {0}")]
    Invalid(String),
    /// The server went away and says that it has not processed the call: its GOAWAY is below the stream's id.
    #[error("the server went away and left the call unprocessed")]
    LeftBehind,
    /// The server says that it has not processed the call, and stays (`REFUSED_STREAM`).
    #[error("the server refused the call unprocessed")]
    Refused,
    /// The server reset the stream, with this HTTP/2 error code.
    #[error("the server reset the stream: {name}", name = reason_name(*.0))]
    Reset(u32),
    /// The connection broke under the stream.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl StreamError {
    /// The gRPC status of a call that ended so (gRPC over HTTP/2, "HTTP2 Transport Mapping").
    pub fn status(&self, peer: &impl std::fmt::Display) -> Status {
        const REFUSED_STREAM: u32 = 7;
        const CANCEL: u32 = 8;
        const ENHANCE_YOUR_CALM: u32 = 11;
        const INADEQUATE_SECURITY: u32 = 12;
        let code = match self {
            Self::NotSent | Self::LeftBehind | Self::Refused | Self::Broken(_) | Self::Reset(REFUSED_STREAM) => {
                Code::Unavailable
            }
            Self::Reset(CANCEL) => Code::Cancelled,
            Self::Reset(ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
            Self::Reset(INADEQUATE_SECURITY) => Code::PermissionDenied,
            Self::Invalid(_) | Self::Reset(_) => Code::Internal,
        };
        Status::new(code, format!("{peer}: {self}"))
    }
}

/// An HTTP/2 error code by its name in RFC 9113.
pub(crate) fn reason_name(code: u32) -> String {
    format!("{:?}", h2::Reason::from(code))
}
