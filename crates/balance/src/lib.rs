//! Evenkeel's balancing core: policies, pickers and connectivity as pure state machines.
//!
//! Nothing here knows a socket, a clock, a runtime or a source of entropy: time and randomness are arguments, and
//! decisions are data. So the same code, bit for bit, balances in a client's process, in the proxy and in the
//! simulator, and any decision replays from a seed.
//!
//! Two planes meet here:
//!
//! - **Control**: one [`Balancer`] a channel. Its driver passes in an [`Input`] for each thing that happens and does
//!   each [`Action`] that comes out. Inside, a tree of [`Policy`]s decides which subchannels are connected.
//! - **Data**: the [`Picker`] that the policy last published. Any thread asks it where a call goes
//!   ([`Picker::pick`]) and ends the [`Call`] it got by saying how it went.
//!
//! ```
//! use evenkeel_balance::{Action, Balancer, Endpoint, Input, LbConfig, Pick, PickArgs, Policies, Time};
//!
//! let config = LbConfig::of("round_robin");
//! let mut balancer = Balancer::new(Policies::standard(), &config, Default::default(), 42)?;
//! let endpoint = Endpoint::new("127.0.0.1:50051".parse::<std::net::SocketAddr>().unwrap());
//! balancer.handle(Time::ZERO, Input::Resolved([endpoint].into()));
//! let mut picker = None;
//! while let Some(action) = balancer.poll_action(Time::ZERO) {
//!     match action {
//!         // A driver would dial here; this one connects at once.
//!         Action::Connect { connection, .. } => balancer.handle(Time::ZERO, Input::Connected(connection)),
//!         Action::Publish(update) => picker = Some(update.picker),
//!         _ => {}
//!     }
//! }
//! let pick = picker.unwrap().pick(&PickArgs::new(Time::ZERO, 7, "/echo.Echo/Unary"));
//! assert!(matches!(pick, Pick::Call(_)));
//! # Ok::<(), evenkeel_balance::ConfigError>(())
//! ```

mod backoff;
mod balancer;
mod check;
mod connectivity;
mod deadlines;
mod decision;
mod endpoint;
mod entropy;
mod further;
mod health;
mod hedging;
mod keepalive;
mod load;
mod load_report;
mod loss;
mod picker;
pub mod policy;
mod progress;
mod quantile;
mod retry;
mod service_config;
mod status;
mod subchannel;
mod sync;
mod time;
mod xxhash;

pub use backoff::Backoff;
pub use balancer::{Action, Balancer, Input, SubchannelReport};
pub use check::{
    CallsSeen, Check, CheckFailure, CheckNews, CheckOutcome, CheckReason, CheckSettings, CheckSettingsError,
    CheckVerdict, FailureKind, History, Initial, Statement, Transition,
};
pub use connectivity::Connectivity;
pub use decision::{Decision, Measurement, Value, What};
pub use endpoint::{Address, Endpoint};
pub use entropy::Entropy;
pub use health::{HealthCheck, HealthSignal, UnknownService};
pub use hedging::{Failure, HedgeBudget, Hedges};
pub use keepalive::{Keepalive, KeepaliveSettings, KeepaliveVerdict};
pub use load::{Load, Suspicion};
pub use load_report::LoadReport;
pub use loss::Loss;
pub use picker::{Call, Metadata, NoChoice, Observer, Outcome, Pick, PickArgs, Picker, Route};
pub use policy::{Context, Event, Policies, Policy, PolicyFactory, Update};
pub use progress::{Progress, ProgressSettings, Traffic, Verdict};
pub use quantile::LiveQuantile;
pub use retry::{Pushback, Retries, RetryThrottle};
pub use service_config::{
    AdaptiveHedging, ConfigError, HedgingPolicy, LbConfig, MethodConfig, RetryPolicy, RetryThrottling, ServiceConfig,
};
pub use status::{Code, Status};
pub use subchannel::{ConnectionId, ConnectionSettings, SubchannelId, SubchannelState};
pub use time::Time;
