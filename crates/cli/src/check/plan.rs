//! From flags to a plan: targets, metadata and credentials, checked before anything is sent.

use std::path::PathBuf;

use base64::{Engine, prelude::BASE64_STANDARD};
use evenkeel_naming::Target;
use evenkeel_transport::ConnectProxy;
use http::{HeaderName, HeaderValue};

use super::{
    credentials::{Credentials, CredentialsError},
    failure::{Cause, Failure},
    go::quoted,
    options::Options,
    probe::Plan,
    rpc::CallSettings,
    server::Way,
};

/// The target of a text. Two forms are taken besides a channel's, as Go's dialler has them: `:port` is on this machine,
/// and `passthrough:///` precedes an address.
pub(super) fn target(text: &str) -> Result<Target, Failure> {
    let address = text.strip_prefix("passthrough:///").unwrap_or(text);
    let local = address.starts_with(':') && address[1..].bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if local { format!("localhost{address}").parse() } else { address.parse() };
    parsed.map_err(|error: evenkeel_naming::TargetError| Failure::new(Cause::Arguments, error.to_string()))
}

/// The plan of these flags.
pub(super) fn of(options: &Options, proxy: ConnectProxy) -> Result<Plan, Failure> {
    let wrong = |problem: String| Failure::new(Cause::Arguments, problem);
    let (connect_timeout, rpc_timeout) = options.timeouts().map_err(wrong)?;
    unsupported(options)?;
    let credentials = options.tls.then(|| credentials(options)).transpose().map_err(|error| error.failure())?;
    let server_name = given(options.tls_server_name.as_ref());
    let way = Way { timeout: connect_timeout, credentials, server_name, proxy, looks_again: true };
    let call = CallSettings {
        user_agent: user_agent(&options.user_agent).map_err(wrong)?,
        metadata: metadata(&options.rpc_headers)?,
        gzip: options.gzip,
    };
    Ok(Plan { service: options.service.clone(), way, call, rpc_timeout })
}

/// What grpc-health-probe can and we cannot, with the exit code of its failure.
fn unsupported(options: &Options) -> Result<(), Failure> {
    if options.tls && options.spiffe {
        return Err(Failure::new(Cause::Arguments, "-tls and -spiffe are mutually incompatible"));
    }
    if options.alts {
        return Err(Failure::new(Cause::Unsupported, "ALTS is not supported")
            .advise("use TLS, or grpc-health-probe on Google Cloud"));
    }
    if options.spiffe {
        return Err(Failure::new(Cause::Spiffe, "the SPIFFE Workload API is not supported")
            .advise("have the credentials written to files, and name these by --tls-ca-cert, --tls-client-cert and --tls-client-key"));
    }
    Ok(())
}

pub(super) fn credentials(options: &Options) -> Result<Credentials, CredentialsError> {
    let path = |text: &Option<String>| given(text.as_ref()).map(PathBuf::from);
    let trusting =
        if options.tls_no_verify { Credentials::blind() } else { Credentials::verifying(path(&options.tls_ca_cert))? };
    match (path(&options.tls_client_cert), path(&options.tls_client_key)) {
        (Some(chain), Some(key)) => trusting.showing(&chain, &key),
        _ => Ok(trusting),
    }
}

/// A flag that is empty is not given.
fn given(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

impl CredentialsError {
    fn failure(&self) -> Failure {
        // grpc-health-probe finds out when it verifies the server's certificate.
        let cause = if matches!(self, Self::NoSystemRoots) { Cause::TlsFailed } else { Cause::Arguments };
        Failure::new(cause, self.to_string())
    }
}

fn user_agent(text: &str) -> Result<HeaderValue, String> {
    let own = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));
    let whole = if text.is_empty() { own.to_owned() } else { format!("{text} {own}") };
    HeaderValue::try_from(whole).map_err(|_| format!("-user-agent {text:?} cannot be sent: it is no header's value"))
}

/// Headers as gRPC sends metadata: names in small letters, and the values of binary ones (`-bin`) in base64.
fn metadata(pairs: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let of_pair = |(name, value): &(String, String)| {
        let name = name.to_lowercase();
        header(&name, value).map_err(|problem| {
            let problem = format!("header key {} {problem}", quoted(&name));
            Failure::new(Cause::Metadata, problem).advise("--rpc-header takes 'name: value' of gRPC metadata")
        })
    };
    pairs.iter().map(of_pair).collect()
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    const BAD_NAME: &str = "contains illegal characters not in [0-9a-z-_.]";
    const BAD_VALUE: &str = "contains value with non-printable ASCII characters";
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if !name.bytes().all(is_allowed) {
        return Err(BAD_NAME);
    }
    let header = HeaderName::try_from(name).map_err(|_| BAD_NAME)?;
    let value = if name.ends_with("-bin") { BASE64_STANDARD.encode(value) } else { value.to_owned() };
    if !value.bytes().all(|byte| (0x20..=0x7E).contains(&byte)) {
        return Err(BAD_VALUE);
    }
    Ok((header, HeaderValue::try_from(value).map_err(|_| BAD_VALUE)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_channels_and_gos() {
        assert_eq!(target(":50051").unwrap().to_string(), "dns:///localhost:50051");
        assert_eq!(target("passthrough:///127.0.0.1:1").unwrap().to_string(), "ipv4:127.0.0.1:1");
        assert_eq!(target("unix:/run/a").unwrap().to_string(), "unix:///run/a");
        assert_eq!(target("dsn:///x").unwrap_err().cause, Cause::Arguments);
    }

    #[test]
    fn metadata_is_named_and_encoded_as_grpc_has_it() {
        let (name, value) = header("x-token", "a b").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-token", "a b"));
        assert_eq!(header("x-bin", "\u{1}\n").unwrap().1, "AQo=");
        assert!(header("a b", "c").is_err() && header("", "c").is_err() && header("a", "\n").is_err());
    }
}
