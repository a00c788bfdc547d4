//! Checks one server and prints each change of its verdict:
//!
//! ```sh
//! cargo run --package evenkeel-checker --example follow -- watch 127.0.0.1:50051 shop.v1.Cart
//! ```
//!
//! Kinds are `grpc` and `watch` (with a service, or none for the whole server), `http` and `http2` (with a path), `tcp`.

#![allow(clippy::print_stdout, reason = "it is a command")]

use std::{error::Error, net::SocketAddr};

use evenkeel_checker::{Checker, Probe, balance::CheckSettings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let (kind, address, what) = match &words[..] {
        [kind, address] => (kind, address, ""),
        [kind, address, what] => (kind, address, what.as_str()),
        _ => return Err("it takes a kind of probe, an address, and a service or a path".into()),
    };
    let probe = match kind.as_str() {
        "grpc" => Probe::grpc(what),
        "watch" => Probe::watch(what),
        "http" => Probe::http(what),
        "http2" => Probe::http2(what),
        "tcp" => Probe::tcp(),
        other => return Err(format!("{other:?} is no kind of probe: grpc, watch, http, http2, tcp").into()),
    };
    let address: SocketAddr = address.parse()?;
    let checker = Checker::start(probe.at(address)?, CheckSettings::default())?;
    let mut transitions = checker.transitions();
    while let Some(change) = transitions.next().await {
        println!("{}: {}", change.to, change.reason);
    }
    Ok(())
}
