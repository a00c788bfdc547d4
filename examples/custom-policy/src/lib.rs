//! Policies of one's own, written against Evenkeel's public API alone. There are two ways:
//!
//! - [`Fastest`] says only how to choose among endpoints that are ready. Connecting, reconnecting, health and the
//!   in-flight counts are [`Petiole`](evenkeel::balance::policy::Petiole)'s. Most policies are of this kind.
//! - [`AvoidZones`] stands over another policy, a [`Child`](evenkeel::balance::policy::Child), and changes what that
//!   one sees.
//!
//! Either is then named in a service config like the built-in ones, and nests with them:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let _runtime = tokio::runtime::Runtime::new()?;
//! # let _guard = _runtime.enter();
//! let config = r#"{"loadBalancingConfig": [{"example.avoid_zones": {
//!     "zones": ["eu-1a"],
//!     "childPolicy": [{"example.fastest": {"memoryPercent": 80}}]
//! }}]}"#;
//! let channel = evenkeel::Channel::builder("dns:///echo.internal:50051")
//!     .policies(evenkeel_example_policy::policies())
//!     .service_config(config)?
//!     .build()?;
//! # drop(channel);
//! # Ok(()) }
//! ```

mod avoid_zones;
mod fastest;

use evenkeel::balance::Policies;

pub use avoid_zones::{AvoidZones, AvoidZonesConfig, AvoidZonesPolicy};
pub use fastest::{ByLatency, Fastest, FastestConfig, Latency};

/// The built-in policies, and those of this crate.
pub fn policies() -> Policies {
    Policies::standard().with(Fastest).with(AvoidZones)
}
