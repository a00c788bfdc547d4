//! gRPC's interop server, with Evenkeel's health service and load reports.
//!
//! It takes the flag of gRPC's own interop servers and answers any of their clients:
//!
//! ```text
//! evenkeel-interop-server --port=10000
//! ```
//!
//! It listens on loopback, says where, and drains on SIGTERM.

#![allow(clippy::print_stdout, reason = "a command speaks to its terminal")]

mod echoed;
mod service;

use std::{net::Ipv4Addr, time::Duration};

use clap::Parser;
use evenkeel_health::Drain;
use evenkeel_interop::proto::test_service_server::TestServiceServer;
use evenkeel_orca::{Measures, Recorder};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

use echoed::Echoed;
use service::TestService;

/// gRPC's interop clients ask for a report a second.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Serves gRPC's interop cases.
#[derive(Debug, Parser)]
#[command(rename_all = "snake_case")]
struct Args {
    /// Port to listen on; 0 takes any free one.
    #[arg(long, default_value_t = 10_000)]
    port: u16,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, Args::parse().port)).await?;
    println!("listening on {}", listener.local_addr()?);

    // The cases compare reports to the last figure, so nothing is measured.
    let load = Recorder::with(Measures::NONE);
    let (reporter, health) = evenkeel_health::service();
    let server = Server::builder()
        .layer(load.layer())
        .layer(tower_layer::layer_fn(Echoed))
        .add_service(health)
        .add_service(load.service_with(REPORT_EVERY))
        .add_service(TestServiceServer::new(TestService::new(load)));
    let incoming = TcpIncoming::from(listener);
    let draining = reporter.drain_on_signal(Drain::default())?;
    draining.run(|signal| server.serve_with_incoming_shutdown(incoming, signal)).await?;
    Ok(())
}
