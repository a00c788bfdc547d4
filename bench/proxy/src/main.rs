//! The programs of the proxy benchmark: backends, load, idle connections, and the floor.

mod backend;
mod call;
mod floor;
mod frame;
mod idle;
mod load;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use tokio::task::LocalSet;

/// The programs of the proxy benchmark
#[derive(Parser)]
enum Program {
    /// Serve canned gRPC replies; prints `ready` when every address listens
    Backend {
        /// Where to listen, separated by commas; each address is a backend of its own
        #[arg(value_delimiter = ',', required = true)]
        addresses: Vec<SocketAddr>,
    },
    /// Make calls, check every reply, and print one line of JSON
    Load(load::Options),
    /// Open connections and keep them idle; prints `open`, then makes a call on each for every line of standard input
    Idle(idle::Options),
    /// Relay frames and do nothing else: what no proxy can be cheaper than
    Floor {
        /// Where to listen
        listen: SocketAddr,
        /// The backends, separated by commas
        #[arg(value_delimiter = ',', required = true)]
        backends: Vec<SocketAddr>,
    },
}

fn main() -> Result<()> {
    match Program::parse() {
        Program::Backend { addresses } => on_this_thread(backend::serve(addresses)),
        Program::Load(options) => on_this_thread(load::run(options)),
        Program::Idle(options) => on_this_thread(idle::run(options)),
        Program::Floor { listen, backends } => floor::run(listen, &backends),
    }
}

fn on_this_thread(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(work))
}
