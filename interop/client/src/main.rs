//! gRPC's interop client on Evenkeel's channel.
//!
//! It takes the flags of gRPC's own interop clients and runs one of their test cases, or all of them with `--all`,
//! against any of gRPC's interop servers:
//!
//! ```text
//! evenkeel-interop --server_host=127.0.0.1 --server_port=10000 --test_case=large_unary
//! ```
//!
//! The exit code is 0 if every case held, and 1 otherwise.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its terminal")]

mod cases;
mod failure;

use std::{net::IpAddr, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use cases::{Case, Server, Soak};

/// No case takes nearly so long, but for a soak that is told to.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Runs gRPC's interop cases on Evenkeel's channel.
#[derive(Debug, Parser)]
#[command(rename_all = "snake_case")]
struct Args {
    /// Name or IP address of the interop server.
    #[arg(long, default_value = "localhost")]
    server_host: String,
    /// Port of the interop server.
    #[arg(long, default_value_t = 10_000)]
    server_port: u16,
    /// The case to run.
    #[arg(long, default_value = "large_unary")]
    test_case: Case,
    /// Runs every case, one after the other.
    #[arg(long, conflicts_with = "test_case")]
    all: bool,
    #[command(flatten)]
    soak: Soak,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let server = Server::at(target(&args.server_host, args.server_port));
    let cases = if args.all { Case::value_variants() } else { &[args.test_case][..] };
    let mut code = ExitCode::SUCCESS;
    for case in cases {
        match run(*case, &server, &args.soak).await {
            Ok(()) => println!("ok    {case}"),
            Err(failure) => {
                eprintln!("FAIL  {case}: {failure}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

async fn run(case: Case, server: &Server, soak: &Soak) -> Result<(), String> {
    let timeout = TIMEOUT.max(soak.longest());
    match tokio::time::timeout(timeout, case.run(server, soak)).await {
        Ok(outcome) => outcome.map_err(|failure| failure.to_string()),
        Err(_) => Err(format!("not done within {timeout:?}")),
    }
}

/// The server as a target that Evenkeel's channel resolves.
fn target(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V4(address)) => format!("ipv4:{address}:{port}"),
        Ok(IpAddr::V6(address)) => format!("ipv6:[{address}]:{port}"),
        Err(_) => format!("dns:///{host}:{port}"),
    }
}
