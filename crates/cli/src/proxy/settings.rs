//! How a proxy treats its clients, as the command line and a file say it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use evenkeel_config::{ClientTls, Proxy as Config, ProxyLimits, parse_duration, parse_size};
use evenkeel_proxy::Settings;
use evenkeel_transport::ServerTls;

/// TLS towards clients, threads, and limits.
#[derive(Debug, clap::Args)]
pub(super) struct SettingsArgs {
    /// Speak TLS with clients: the PEM file of the certificate chain that they are shown
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Clients have to show a certificate that one in this PEM file has signed (mTLS)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Threads that carry calls [default: one for each processor that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    workers: Option<u32>,
    /// Clients that may be connected [default: 10000 a worker]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// Calls that one connection may have running [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    max_concurrent_streams: Option<u32>,
    /// The largest message, such as 4MiB [default: 2 GiB - 1]
    #[arg(long, value_name = "SIZE", value_parser = parse_message)]
    max_message: Option<u64>,
    /// How long a client may take for TLS and for HTTP/2's preface [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    handshake_timeout: Option<Duration>,
}

impl SettingsArgs {
    /// What a file would say.
    pub(super) fn tls(&self) -> Option<ClientTls> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(ClientTls { cert, key, client_ca: self.tls_client_ca.clone() })
    }

    /// What a file would say.
    pub(super) fn workers(&self) -> Option<u32> {
        self.workers
    }

    /// What a file would say.
    pub(super) fn limits(&self) -> ProxyLimits {
        ProxyLimits {
            connections: self.max_connections,
            max_concurrent_streams: self.max_concurrent_streams,
            max_message: self.max_message,
            handshake_timeout: self.handshake_timeout,
            ..ProxyLimits::default()
        }
    }
}

/// What a file says, over what the proxy has by default.
pub(crate) fn settings(said: &Config) -> Result<Settings, String> {
    let mut to = Settings::default().with_drain_timeout(said.drain_timeout);
    if let Some(ClientTls { cert, key, client_ca }) = &said.tls {
        let tls = ServerTls::new(cert, key, client_ca.clone()).map_err(|error| format!("TLS: {error}"))?;
        to.tls = Some(Arc::new(tls));
    }
    // Bounds are those of the file, where larger ones are refused.
    let small = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let large = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let count = |number: u32| large(number.into());
    let limits = &said.limits;
    to.workers = said.workers.map_or(to.workers, count);
    to.connections = limits.connections.map(count);
    to.max_concurrent_streams = limits.max_concurrent_streams.unwrap_or(to.max_concurrent_streams);
    to.max_header_list = limits.max_header_list.map_or(to.max_header_list, small);
    to.max_header_count = limits.max_header_count.unwrap_or(to.max_header_count);
    to.max_message = limits.max_message.map_or(to.max_message, small);
    to.max_replay = limits.max_replay.map_or(to.max_replay, large);
    to.max_held = limits.max_held.map_or(to.max_held, large);
    to.endpoint_connections = limits.endpoint_connections.map_or(to.endpoint_connections, count);
    to.handshake_timeout = limits.handshake_timeout.unwrap_or(to.handshake_timeout);
    to.header_timeout = limits.header_timeout.unwrap_or(to.header_timeout);
    Ok(to)
}

fn parse_message(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (1..=i32::MAX as u64).contains(&size) { Ok(size) } else { Err("it can be 1 to 2147483647 bytes".to_owned()) }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() { Err("it must be above 0".to_owned()) } else { Ok(timeout) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    #[test]
    fn limits_are_read_from_the_command_line() {
        let read = |arguments: &[&str]| Line::try_parse_from([&["x"], arguments].concat()).map(|line| line.settings);
        let limits = read(&["--max-message", "4MiB", "--max-connections", "7"]).unwrap().limits();
        assert_eq!((limits.max_message, limits.connections), (Some(4 << 20), Some(7)));
        let alone = [&["--tls-cert", "c.pem"][..], &["--tls-key", "k.pem"], &["--tls-client-ca", "ca.pem"]];
        let wrong = [&["--workers", "0"][..], &["--max-message", "2GiB"], &["--handshake-timeout", "0s"]];
        for arguments in alone.into_iter().chain(wrong) {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
    }
}
