//! Target URIs and the resolvers that turn them into endpoints.
//!
//! A [`Target`] is parsed once, from the string a person wrote. It names the built-in [`Resolver`] that serves it,
//! [`start`] runs that resolver, and the channel reads its [`Outcome`]s:
//!
//! ```
//! use evenkeel_naming::{Options, Target, start};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target: Target = "127.0.0.1:50051,127.0.0.2:50051".parse()?;
//! let mut resolving = start(target.resolver(&Options::default()));
//! let resolution = resolving.next().await.expect("a list of addresses resolves at once")?;
//! assert_eq!(resolution.endpoints.len(), 2);
//! assert_eq!(target.authority(), "127.0.0.1:50051");
//! # Ok(())
//! # }
//! ```
//!
//! A resolver never takes a good list away: names that vanish, servers that fail or stay silent are [`ResolveError`]s,
//! and the channel keeps the last list it got.

mod built_in;
mod dns;
mod error;
mod file;
mod fixed;
mod interface;
mod json;
mod nearest;
mod options;
mod ranked;
mod resolver;
mod service_config;
mod target;

pub use error::{FailureKind, ResolveError};
pub use options::Options;
pub use ranked::Ranked;
pub use resolver::{Outcome, Resolution, Resolver, Resolving, Updates, start};
pub use service_config::ConfigClient;
pub use target::{Target, TargetError, TargetProblem};
