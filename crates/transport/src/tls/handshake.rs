//! What one handshake goes by, and what to do where it fails.

use std::{fmt, io, sync::Arc};

use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};

use super::Protocol;

/// What one handshake goes by, for whoever speaks TLS by itself: made for one connection, with the files as they are.
#[derive(Clone)]
pub struct Handshake {
    /// Roots, identity, versions and ALPN.
    pub config: Arc<ClientConfig>,
    /// Whom the server's certificate must be for, and what it is sent (SNI).
    pub server_name: ServerName<'static>,
    pub(super) protocol: Protocol,
}

impl Handshake {
    /// Whether `negotiated`, what the server has chosen by ALPN, will do.
    ///
    /// # Errors
    ///
    /// What is the matter, where it will not: for HTTP/2, anything but `h2`.
    pub fn agreed(&self, negotiated: Option<&[u8]>) -> Result<(), String> {
        match (self.protocol, negotiated) {
            (Protocol::Http2, Some(b"h2")) | (Protocol::Http1 | Protocol::Unnamed, _) => Ok(()),
            (Protocol::Http2, other) => Err(no_h2(other)),
        }
    }

    /// Why the handshake failed, and what to do about it where that is known. A [`rustls::Error`] may be inside of `error`.
    pub fn explain(&self, error: &io::Error) -> String {
        let name = self.server_name.to_str();
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(cause) => format!("TLS: {cause}{}", advice(cause, &name)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "TLS: the server hung up during the handshake; does it speak TLS on this port?".to_owned()
            }
            None => format!("TLS: {error}"),
        }
    }
}

/// The configuration is left out: it holds a private key.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// What to do about a failed handshake, where that is known.
fn advice(error: &rustls::Error, name: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "; none of the trusted roots has signed the server's certificate: name its CA by Tls::ca_file".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("; the channel expects {name}: set another name by Tls::server_name"),
        rustls::Error::InvalidMessage(_) => "; the server does not seem to speak TLS on this port".to_owned(),
        rustls::Error::AlertReceived(alert) => alert_advice(*alert).to_owned(),
        _ => String::new(),
    }
}

/// What to do about an alert of the server.
fn alert_advice(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::NoApplicationProtocol => "; the server does not speak HTTP/2 (ALPN h2)",
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
            "; the server may want a client's certificate: give one by Tls::identity_files"
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::UnsupportedCertificate => {
            "; the server does not accept the client's certificate: check what Tls::identity_files names"
        }
        _ => "",
    }
}

/// An error of reading, with what to do about it if it is an alert. A TLS 1.3 client's handshake is over before the
/// server has seen its certificate, so that the refusal comes where data is awaited.
pub(crate) fn explain_read(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(cause @ rustls::Error::AlertReceived(alert)) => {
            io::Error::new(error.kind(), format!("TLS: {cause}{}", alert_advice(*alert)))
        }
        _ => error,
    }
}

fn no_h2(negotiated: Option<&[u8]>) -> String {
    let what =
        negotiated.map_or_else(|| "no protocol".to_owned(), |name| format!("{:?}", name.escape_ascii().to_string()));
    format!("TLS: the server chose {what} by ALPN, and gRPC needs \"h2\": is it a gRPC server, and is HTTP/2 on there?")
}
