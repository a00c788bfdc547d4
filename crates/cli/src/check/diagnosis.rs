//! What went wrong on the way to a server, made out from what was seen.

use std::{io, time::Duration};

use rustls::{AlertDescription, CertificateError};

use super::{
    certificate::Certificate,
    failure::{Cause, Failure},
    overheard::Overheard,
};

/// A step that took too long, by what it did.
pub(super) fn too_slow(step: &str, limit: Duration) -> Failure {
    let (what, advice) = match step {
        "connect" => {
            ("no answer to the attempt to connect", "a firewall may drop the packets, or the host may be down")
        }
        "look up the name" => ("no answer to the look-up of the name", "does this machine's DNS work?"),
        "shake hands by TLS" => (
            "the connection was accepted, and nothing came in answer to the TLS handshake",
            "the process may hang, or not speak TLS on this port",
        ),
        _ => (
            "the connection was accepted, and the server has said nothing",
            "the process may hang, or speak another protocol than HTTP/2 on this port (with TLS? then --tls)",
        ),
    };
    Failure::new(Cause::ConnectTimeout, format!("{what} within {limit:?}")).advise(advice)
}

/// TLS was meant, and the server speaks plain text.
pub(super) fn plaintext_server(evidence: &str) -> Failure {
    Failure::new(Cause::PlaintextServer, format!("the server does not speak TLS on this port: {evidence}"))
        .advise("leave --tls out, or ask the port that has TLS")
}

/// Plain text was meant, and the server wants TLS.
pub(super) fn tls_server(evidence: &str) -> Failure {
    Failure::new(Cause::TlsServer, format!("the server wants TLS on this port: {evidence}")).advise("add --tls")
}

/// The server chose no protocol, or another than HTTP/2.
pub(super) fn no_alpn(chosen: Option<&str>) -> Failure {
    let chosen = chosen.map_or_else(|| "none".to_owned(), |name| format!("{name:?}"));
    Failure::new(Cause::NoAlpn, format!("TLS: of protocols the server chose {chosen} by ALPN, and gRPC needs \"h2\""))
        .advise("is it a gRPC server, and is HTTP/2 on there?")
}

/// Why a TLS handshake failed.
pub(super) fn of_handshake(
    error: &io::Error,
    name: &str,
    certificate: Option<&Certificate>,
    wire: &Overheard,
    has_identity: bool,
) -> Failure {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(problem)) => of_certificate(problem, name, certificate),
        Some(rustls::Error::AlertReceived(alert)) => of_alert(*alert, has_identity),
        Some(rustls::Error::InvalidMessage(_)) if wire.is_http1() => {
            plaintext_server(&format!("it answers {:?}", wire.first_line()))
        }
        Some(rustls::Error::InvalidMessage(_)) if wire.begins_http2() => {
            plaintext_server("it answers HTTP/2 without it")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            plaintext_server(&format!("it answers {:?}, which is no TLS", wire.first_line()))
        }
        Some(other) => Failure::new(Cause::TlsFailed, format!("TLS: {other}")),
        None if wire.is_silent() => {
            Failure::new(Cause::Closed, format!("the server hung up during the TLS handshake without a word ({error})"))
                .advise("does it speak TLS on this port?")
        }
        None => Failure::new(Cause::TlsFailed, format!("the TLS handshake broke off: {error}")),
    }
}

fn of_certificate(problem: &CertificateError, name: &str, certificate: Option<&Certificate>) -> Failure {
    let told = |of: fn(&Certificate) -> String| certificate.map_or_else(|| "unknown".to_owned(), of);
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let message = format!("the server's certificate expired on {}", told(|c| c.not_after.clone()));
            Failure::new(Cause::TlsExpired, message)
                .advise("renew it, and check that the server has loaded the new one")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let message = format!("the server's certificate is not valid before {}", told(|c| c.not_before.clone()));
            Failure::new(Cause::TlsNotYetValid, message).advise("are the clocks of both machines right?")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = told(Certificate::listed_names);
            let message = format!("the server's certificate is not for {name:?}; it is for: {names}");
            Failure::new(Cause::TlsWrongName, message).advise("set one of its names by --tls-server-name")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let issuer =
                told(|c| if c.issuer == c.subject { format!("itself ({})", c.issuer) } else { c.issuer.clone() });
            let message = format!("the server's certificate is issued by {issuer}, whom we do not trust");
            Failure::new(Cause::TlsUnknownIssuer, message).advise("name its CA by --tls-ca-cert")
        }
        other => Failure::new(Cause::TlsFailed, format!("the server's certificate cannot be used: {other}")),
    }
}

fn of_alert(alert: AlertDescription, has_identity: bool) -> Failure {
    let said = format!("TLS: the server says {alert:?}");
    match alert {
        AlertDescription::NoApplicationProtocol => {
            Failure::new(Cause::NoAlpn, said).advise("it does not offer HTTP/2 (ALPN h2): is it a gRPC server?")
        }
        AlertDescription::UnrecognisedName => {
            Failure::new(Cause::TlsWrongName, said).advise("set a name that it knows by --tls-server-name")
        }
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure if !has_identity => {
            Failure::new(Cause::TlsClientCertificate, said)
                .advise("it wants a client's certificate: give one by --tls-client-cert and --tls-client-key")
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::AccessDenied
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::UnsupportedCertificate => {
            let advice = if has_identity {
                "it does not accept our certificate: check what --tls-client-cert names"
            } else {
                "it may want a client's certificate: give one by --tls-client-cert and --tls-client-key"
            };
            Failure::new(Cause::TlsClientCertificate, said).advise(advice)
        }
        _ => Failure::new(Cause::TlsFailed, said),
    }
}

/// Why HTTP/2 did not begin, where `why` is what the connection says.
pub(super) fn of_http2(why: &str, heard: &Overheard, has_identity: bool) -> Failure {
    if let Some(alert) = heard.alert() {
        // In TLS 1.3 a client's handshake is over before the server has seen its certificate.
        return of_alert(alert, has_identity);
    }
    if heard.is_silent() {
        return Failure::new(Cause::Closed, format!("the server closed the connection without a word ({why})"))
            .advise("does it speak gRPC on this port, and does it want TLS (--tls)?");
    }
    if heard.is_tls_alert() {
        return tls_server("it answers with a TLS alert");
    }
    let line = heard.first_line();
    match heard.is_http1() {
        true if heard.mentions("HTTPS") => tls_server(&format!("it answers {line:?} and speaks of HTTPS")),
        true => Failure::new(Cause::Http1, format!("the server speaks HTTP/1: it answers {line:?}"))
            .advise("gRPC needs HTTP/2: is this the port of the gRPC server?"),
        false if heard.begins_http2() => Failure::new(Cause::Closed, format!("the server ended the connection: {why}")),
        false => Failure::new(Cause::NotHttp2, format!("the server does not speak HTTP/2: it says {line:?} ({why})"))
            .advise("is this the port of the gRPC server?"),
    }
}
