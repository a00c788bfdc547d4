//! Why there is no status, and what to do about it.

use evenkeel_balance::Code;

/// Why a server's status is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default())]
pub(super) struct Failure {
    /// What kind of failure it was, for programs.
    pub(super) cause: Cause,
    /// What failed, at which step.
    pub(super) message: String,
    /// What to do about it, where that is known.
    pub(super) advice: Option<String>,
    /// How the call ended, with the server's words, if there was one.
    pub(super) status: Option<(Code, String)>,
}

/// The kinds of failure. Their names are part of what `--json` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Arguments,
    NameNotFound,
    NameLookupFailed,
    Refused,
    Unreachable,
    ConnectTimeout,
    Proxy,
    TlsExpired,
    TlsNotYetValid,
    TlsWrongName,
    TlsUnknownIssuer,
    TlsClientCertificate,
    TlsFailed,
    PlaintextServer,
    TlsServer,
    NoAlpn,
    Http1,
    Closed,
    NotHttp2,
    Unsupported,
    Spiffe,
    Metadata,
    Unimplemented,
    UnknownService,
    Deadline,
    Denied,
    CallFailed,
}

impl Cause {
    /// Its name, for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Arguments => "bad_arguments",
            Self::NameNotFound => "name_not_found",
            Self::NameLookupFailed => "name_lookup_failed",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Proxy => "proxy",
            Self::TlsExpired => "tls_certificate_expired",
            Self::TlsNotYetValid => "tls_certificate_not_yet_valid",
            Self::TlsWrongName => "tls_wrong_name",
            Self::TlsUnknownIssuer => "tls_unknown_issuer",
            Self::TlsClientCertificate => "tls_client_certificate",
            Self::TlsFailed => "tls_failed",
            Self::PlaintextServer => "server_speaks_plaintext",
            Self::TlsServer => "server_wants_tls",
            Self::NoAlpn => "no_alpn_h2",
            Self::Http1 => "http1_server",
            Self::Closed => "closed",
            Self::NotHttp2 => "not_http2",
            Self::Unsupported => "unsupported",
            Self::Spiffe => "spiffe",
            Self::Metadata => "bad_metadata",
            Self::Unimplemented => "unimplemented",
            Self::UnknownService => "unknown_service",
            Self::Deadline => "rpc_timeout",
            Self::Denied => "denied",
            Self::CallFailed => "call_failed",
        }
    }

    /// As grpc-health-probe exits.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Arguments => 1,
            Self::Spiffe => 20,
            Self::Metadata
            | Self::Unimplemented
            | Self::UnknownService
            | Self::Deadline
            | Self::Denied
            | Self::CallFailed => 3,
            _ => 2,
        }
    }
}

impl Failure {
    pub(super) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), advice: None, status: None }
    }

    /// With what to do about it.
    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// A call to `service` that ended with a status other than OK.
    pub(super) fn of_call(code: Code, words: &str, service: &str) -> Self {
        let told = if words.is_empty() { code.to_string() } else { format!("{code}: {words}") };
        let failure = match code {
            Code::Unimplemented => {
                Self::new(Cause::Unimplemented, format!("the server has no grpc.health.v1.Health ({told})"))
                    .advise("add the health service to the server, or ask another port")
            }
            Code::NotFound => {
                Self::new(Cause::UnknownService, format!("the server does not know the service {service:?}"))
            }
            Code::DeadlineExceeded => {
                Self::new(Cause::Deadline, format!("the server gave up at the deadline ({told})"))
            }
            Code::PermissionDenied | Code::Unauthenticated => Self::new(
                Cause::Denied,
                format!("the server does not answer us ({told})"),
            )
            .advise(
                "give credentials by --rpc-header 'authorization: …', or let the server answer health checks without",
            ),
            _ => Self::new(Cause::CallFailed, format!("the call failed ({told})")),
        };
        Self { status: Some((code, words.to_owned())), ..failure }
    }
}
