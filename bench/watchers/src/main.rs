//! Ten thousand clients watch the health of one server, and some of them read nothing: what the server's process then
//! weighs, and how long it takes until every other client has been told of a change.
//!
//! The server is a process of its own, so that its memory is told from the clients'.

mod clients;
mod server;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Parser;

use crate::clients::Clients;
use crate::server::Server;

#[derive(Clone, Debug, Parser)]
struct Options {
    /// Watch streams in all.
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    /// Connections that they are spread over.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// How many of the streams are on connections that are not read once the first reply has come.
    #[arg(long, default_value_t = 1000)]
    stalled: usize,
    /// How often the status changes.
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// Serve by tonic's own server, for comparison.
    #[arg(long)]
    tonic: bool,
    /// Be the server; the program starts itself so.
    #[arg(long, hide = true)]
    server: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if options.server { runtime.block_on(server::run(options.tonic)) } else { runtime.block_on(measure(&options)) }
}

async fn measure(options: &Options) -> Result<()> {
    ensure!(options.watchers % options.connections == 0, "as many watchers on each connection");
    let mut server = Server::start(options.tonic)?;
    println!("server alone: {}", server.memory()?);
    let streams = options.watchers / options.connections;
    let mut clients = Clients::connect(server.address, options.connections, streams, options.stalled / streams).await?;
    println!(
        "{} watchers on {} connections, {} of them not read: {}",
        options.watchers,
        options.connections,
        options.stalled,
        server.memory()?
    );
    let mut told = Vec::new();
    for _ in 0..options.changes {
        let since = server.change()?;
        told.extend(clients.all_told(since).await?);
    }
    report(&mut told);
    println!("after {} changes: {}", options.changes, server.memory()?);
    server.check(server.address).await
}

fn report(told: &mut [Duration]) {
    told.sort_unstable();
    let at = |share: usize| told[(told.len() - 1) * share / 100];
    println!("told after: p50 {:.1?}, p99 {:.1?}, max {:.1?} ({} times)", at(50), at(99), at(100), told.len());
}

/// Time that both processes agree on.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
