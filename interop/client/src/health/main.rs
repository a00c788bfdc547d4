//! Evenkeel's health service alone, on Evenkeel's server: what foreign checkers are let loose on.
//!
//! It prints `listening on ADDRESS`, obeys the backends' commands `serving` and `not_serving` on its standard input,
//! drains on SIGTERM, and ends when its standard input closes.

#![allow(clippy::print_stdout, reason = "a command speaks to its terminal")]

use std::{io, net::SocketAddr};

use clap::Parser;
use evenkeel_health::{Drain, Reporter, ServingStatus};
use evenkeel_proto::demo::echo_server::SERVICE_NAME;
use evenkeel_server::{Listener, Server};
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::service::Routes;

/// Serves grpc.health.v1.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Taken as the other backends take it; nothing here has a name.
    #[arg(long, default_value = "evenkeel")]
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = Listener::bind(Args::parse().listen).await?;
    let address = listener.local_addr()?;
    let (reporter, health) = evenkeel_health::service();
    set(&reporter, ServingStatus::Serving);
    let draining = reporter.drain_on_signal(Drain::default())?;
    println!("listening on {address}");
    let server = Server::new(listener, Routes::new(health));
    tokio::select! {
        drained = draining.run(|signal| server.serve_with_shutdown(signal)) => drained?,
        ended = obey(&reporter) => ended?,
    }
    // A runtime's end would wait for the thread that reads standard input.
    std::process::exit(0);
}

async fn obey(reporter: &Reporter) -> io::Result<()> {
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        let status = match command.as_str() {
            "serving" => ServingStatus::Serving,
            "not_serving" => ServingStatus::NotServing,
            unknown => {
                println!(r#"{{"error": "unknown command {unknown}"}}"#);
                continue;
            }
        };
        set(reporter, status);
        println!(r#"{{"status": "{status}"}}"#);
    }
    Ok(())
}

fn set(reporter: &Reporter, status: ServingStatus) {
    for service in ["", SERVICE_NAME] {
        reporter.set(service, status);
    }
}
