use clap::{Parser, Subcommand};

use crate::{backend, clients, figures::Counted, load, picks, updates};

/// Measures Evenkeel's channel and its peers side by side
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// CPU time, allocations and latency of a small unary call
    Clients(clients::Options),
    /// Time of one pick by each policy
    Picks,
    /// Time until a changed list of endpoints is in force
    Updates,
    /// One client under load: what `clients` starts
    #[command(hide = true)]
    Client(load::Options),
    /// The servers that clients call: what `clients` starts
    #[command(hide = true)]
    Backends,
}

/// Does what the command line asks for.
///
/// # Errors
///
/// Where a client or a backend does not do its part.
pub fn run(counted: Option<Counted>) -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Clients(options) => clients::compare(&options),
        What::Picks => picks::measure(),
        What::Updates => updates::measure(),
        What::Client(options) => load::run(&options, counted),
        What::Backends => backend::run(),
    }
}
