//! The flags of grpc-health-probe, by its names and with its defaults and rules.

use std::time::Duration;

use clap::ArgAction;

use super::go::{GoDuration, parse_bool};

/// What grpc-health-probe's flags say.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "they are another program's flags")]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
#[command(next_help_heading = "As grpc-health-probe has them")]
pub(super) struct Options {
    /// A server, as the targets are
    #[arg(long, value_name = "TARGET")]
    pub(super) addr: Option<String>,
    /// The service to ask about; without it, the whole server
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) service: String,
    /// What the server is told of who asks, before our own name and version
    #[arg(long, value_name = "TEXT", default_value = "grpc_health_probe")]
    pub(super) user_agent: String,
    /// How long connecting may take
    #[arg(long, value_name = "DURATION", default_value = "1s", allow_hyphen_values = true)]
    pub(super) connect_timeout: GoDuration,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "1s", allow_hyphen_values = true)]
    pub(super) rpc_timeout: GoDuration,
    /// Metadata for the call, as 'name: value'; may be given several times
    #[arg(long = "rpc-header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(super) rpc_headers: Vec<(String, String)>,
    /// Speak TLS
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = parse_bool, hide_default_value = true)]
    pub(super) tls: bool,
    /// Take any certificate of the server, which protects from nobody
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = parse_bool, hide_default_value = true)]
    pub(super) tls_no_verify: bool,
    /// Trust the certificates in this PEM file, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub(super) tls_ca_cert: Option<String>,
    /// Show the server this certificate: PEM, with its chain
    #[arg(long, value_name = "FILE")]
    pub(super) tls_client_cert: Option<String>,
    /// The private key of that certificate: PEM
    #[arg(long, value_name = "FILE")]
    pub(super) tls_client_key: Option<String>,
    /// The name that the server's certificate must be for, in place of the target's host
    #[arg(long, value_name = "NAME")]
    pub(super) tls_server_name: Option<String>,
    /// Speak ALTS; not supported: exit code 2
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = parse_bool, hide_default_value = true)]
    pub(super) alts: bool,
    /// Speak TLS with credentials of the SPIFFE Workload API; not supported: exit code 20
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = parse_bool, hide_default_value = true)]
    pub(super) spiffe: bool,
    /// Compress the request by gzip, and take a reply that is
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = parse_bool, hide_default_value = true)]
    pub(super) gzip: bool,
    /// Say more, on standard error
    #[arg(short = 'v', long, alias = "v", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_value = "false", default_missing_value = "true", value_parser = parse_bool)]
    #[arg(hide_default_value = true)]
    pub(super) verbose: bool,
}

/// A name and its value; space after the colon is not part of it.
fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it must be 'name: value'")?;
    Ok((name.to_owned(), value.trim_start().to_owned()))
}

impl Options {
    /// The time-outs of connecting and of the call.
    ///
    /// # Errors
    ///
    /// What of the flags does not go together, in grpc-health-probe's words and order of looking.
    pub(super) fn timeouts(&self) -> Result<(Duration, Duration), String> {
        let positive = |name: &str, value: GoDuration| {
            value.positive().ok_or_else(|| format!("{name} must be greater than zero (specified: {value})"))
        };
        let connect = positive("-connect-timeout", self.connect_timeout)?;
        let rpc = positive("-rpc-timeout", self.rpc_timeout)?;
        match self.contradictions().into_iter().find(|(is_so, _)| *is_so) {
            Some((_, problem)) => Err(problem.to_owned()),
            None => Ok((connect, rpc)),
        }
    }

    fn contradictions(&self) -> [(bool, &'static str); 10] {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let (ca, name) = (given(&self.tls_ca_cert), given(&self.tls_server_name));
        let (cert, key) = (given(&self.tls_client_cert), given(&self.tls_client_key));
        let plain = !self.tls;
        [
            (self.alts && self.spiffe, "-alts and -spiffe are mutually incompatible"),
            (self.tls && self.alts, "cannot specify -tls with -alts"),
            (plain && self.tls_no_verify, "specified -tls-no-verify without specifying -tls"),
            (plain && ca, "specified -tls-ca-cert without specifying -tls"),
            (plain && cert, "specified -tls-client-cert without specifying -tls"),
            (plain && name, "specified -tls-server-name without specifying -tls"),
            (cert && !key, "specified -tls-client-cert without specifying -tls-client-key"),
            (!cert && key, "specified -tls-client-key without specifying -tls-client-cert"),
            (self.tls_no_verify && ca, "cannot specify -tls-ca-cert with -tls-no-verify (CA cert would not be used)"),
            (
                self.tls_no_verify && name,
                "cannot specify -tls-server-name with -tls-no-verify (server name would not be used)",
            ),
        ]
    }
}
