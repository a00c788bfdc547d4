use std::{sync::Arc, time::Duration};

use evenkeel_balance::{
    Address, Code, ConnectionId, HedgingPolicy, Input, KeepaliveSettings, Load, LoadReport, MethodConfig, Pick,
    ProgressSettings, RetryThrottle, Time,
};

use crate::fields::Fields;

/// The balancing side of a relay: where its calls go, by which rules, and who hears what became of them.
///
/// All of it is called on the relay's own thread and must not block.
pub trait Placement {
    /// What is known of a method, its configuration and its figures, for as long as a call of it runs.
    type Method;

    /// Changes with every new picker.
    fn version(&self) -> u64;

    /// Shows each endpoint of the newest version that is to be kept connected: the connection by which the balancer knows
    /// it, where it leads, and what it carries.
    fn connections(&self, each: &mut dyn FnMut(ConnectionId, &Address, &Arc<Load>));

    /// Chooses an endpoint for a call to `path` with this head.
    fn pick(&mut self, now: Time, path: &str, head: &Fields) -> Pick;

    /// A call to `path` has begun.
    fn begin(&mut self, now: Time, path: &str) -> Self::Method;

    /// What the service config says of the method.
    fn config<'m>(&self, method: &'m Self::Method) -> &'m MethodConfig;

    /// The retry tokens, where the service config has them.
    fn throttle(&self) -> Option<&Arc<RetryThrottle>>;

    /// 64 random bits.
    fn entropy(&mut self) -> u64;

    /// How long a hedge waits for the attempt before it; [`Duration::MAX`] where there is to be none.
    fn hedging_delay(&mut self, method: &Self::Method, policy: &HedgingPolicy) -> Duration;

    /// Takes one hedge from the method's budget, where it has one. Whether there was one left.
    fn spend_hedge(&mut self, method: &Self::Method, policy: &HedgingPolicy) -> bool;

    /// An attempt of a hedged call has answered, after so long.
    fn note_latency(&mut self, method: &Self::Method, latency: Duration);

    /// An attempt goes out.
    fn attempt_started(&mut self, method: &Self::Method);

    /// It has ended.
    fn attempt_ended(&mut self, method: &Self::Method, code: Code, cost: &AttemptCost);

    /// The call has ended, after so long.
    fn ended(&mut self, method: Self::Method, code: Code, duration: Duration, repeats: &Repeats);

    /// The server's load report in these trailers, if there is one (gRFC A51).
    fn load_report(&self, trailers: &Fields) -> Option<Arc<LoadReport>>;

    /// Tells the balancer what the relay has learned of a connection that [`connections`](Self::connections) has shown.
    fn tell(&mut self, input: Input);

    /// By which rules connections to endpoints are watched.
    fn line(&self) -> (ProgressSettings, KeepaliveSettings);
}

/// What an attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCost {
    /// From the pick to the last byte.
    pub duration: Duration,
    /// Bytes of messages that were sent, as they were compressed, without their prefixes.
    pub sent: u64,
    /// Bytes of messages that came back, likewise.
    pub received: u64,
}

/// How often a call was tried beyond its first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// By the service config's retry policy.
    pub retries: u32,
    /// Because no server had processed it.
    pub transparent: u32,
    /// Beside an attempt that had not failed.
    pub hedges: u32,
    /// Time between attempts, in which none was running.
    pub delay: Duration,
}
