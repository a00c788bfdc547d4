//! Active health checks: probes of gRPC, HTTP and TCP servers, with thresholds, reasons and a history.
//!
//! - [`Probe`] says what is asked and how; [`Probe::at`] binds it to a server.
//! - [`Prober`] asks one server, and keeps its connection from one probe to the next.
//! - [`Checker`] is a task that asks by a schedule. What outcomes mean is decided by
//!   [`Check`](evenkeel_balance::Check), which knows no socket: rise and fall, statements that take effect at once, and
//!   calls that are trusted over checks.
//!
//! ```no_run
//! # use evenkeel_balance::CheckSettings;
//! # use evenkeel_checker::{Checker, Probe};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let probe = Probe::watch("shop.v1.Cart");
//! let address: std::net::SocketAddr = "10.0.0.7:50051".parse()?;
//! let checker = Checker::start(probe.at(address)?, CheckSettings::default())?;
//! let mut transitions = checker.transitions();
//! while let Some(change) = transitions.next().await {
//!     println!("{} {change}", checker.address());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Many of them
//! A checker is one task and one kept connection. Thousands are best spread over their interval
//! ([`CheckSettings::spread`](evenkeel_balance::CheckSettings::spread)), and given a
//! [`failing_interval`](evenkeel_balance::CheckSettings::failing_interval) that the machine can bear when all fail at
//! once.
//!
//! # What is seen from outside
//! Transitions are logged at level info, target `evenkeel::checker`, and probes at trace. Figures go to the `metrics`
//! facade: `evenkeel.check.probes`, `evenkeel.check.duration`, `evenkeel.check.delay` and `evenkeel.check.transitions`.

mod checker;
pub mod codec;
mod failure;
mod grpc;
mod http1;
mod http2;
mod metrics;
mod probe;
mod prober;
mod route;

pub use checker::{Checker, Standing, Transitions};
pub use evenkeel_balance as balance;
pub use evenkeel_transport::{Clock, ConnectProxy};
#[cfg(feature = "tls")]
pub use evenkeel_transport::{Tls, TlsError};
pub use probe::{Probe, ProbeError};
pub use prober::{News, Prober};
