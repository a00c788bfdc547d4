//! A virtual-time driver of Evenkeel's balancing core.
//!
//! The very same [`Balancer`](evenkeel_balance::Balancer) that runs in a client and in the proxy is driven here by an
//! agenda of events instead of sockets and a clock: minutes pass in milliseconds, and a [`Scenario`] with its seed
//! explains every decision. Servers can be slow, die, flap, freeze or call themselves unhealthy.
//!
//! ```
//! use std::time::Duration;
//!
//! use evenkeel_balance::LbConfig;
//! use evenkeel_sim::{Scenario, Server, run};
//!
//! let fast = Server::new(Duration::from_millis(10));
//! let mut scenario = Scenario::new(LbConfig::of("least_request"), vec![fast.clone(), fast.clone(), fast.slow(20.0)]);
//! scenario.duration = Duration::from_secs(10);
//! let trace = run(&scenario)?;
//! assert!(trace.picks(2) < trace.picks(0));
//! assert_eq!(trace.to_string(), run(&scenario)?.to_string());
//! # Ok::<(), evenkeel_balance::ConfigError>(())
//! ```
//!
//! The model is deliberately plain: a server handles any number of calls at once, calls are not retried, the network
//! delays everything by the same time, and it loses nothing.

mod agenda;
mod connection;
mod scenario;
mod server;
mod simulation;
mod trace;

pub use scenario::Scenario;
pub use server::Server;
pub use simulation::run;
pub use trace::{CallRecord, ConnectionEvent, ConnectionRecord, Trace};
