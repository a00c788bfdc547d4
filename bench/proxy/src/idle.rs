//! Connections that are open and do nothing, while their peer's memory is read.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::call::{Caller, Shape};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to connect
    server: SocketAddr,
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    #[command(flatten)]
    shape: Shape,
}

/// Opens the connections, then makes a call on each of them for every line of standard input, until that ends.
pub(crate) async fn run(options: Options) -> Result<()> {
    let caller = Caller::new(options.server, options.shape);
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(caller.connect().await?);
    }
    println!("open");
    let mut orders = BufReader::new(stdin()).lines();
    while orders.next_line().await?.is_some() {
        for (number, connection) in connections.iter().enumerate() {
            if let Err(why) = caller.call(connection).await {
                bail!("the call on connection {number} failed: {why}");
            }
        }
        println!("called");
    }
    Ok(())
}
