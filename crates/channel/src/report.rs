use evenkeel_balance::{Connectivity, SubchannelReport, Time};

/// What a channel knows of its endpoints: which are out, why, and since when.
///
/// A new one is sent at each change of state; the counters in it are live.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The target that the channel was made for.
    pub target: String,
    /// The channel's own state.
    pub connectivity: Connectivity,
    /// The name of the policy that places its calls.
    pub policy: String,
    /// Every address that it knows, in order.
    pub endpoints: Vec<SubchannelReport>,
    /// The resolver's last error, until it succeeds again. The endpoints of its last answer stay in force.
    pub resolver_error: Option<String>,
    /// Why the last service config was refused, until one is accepted. The one before stays in force.
    pub config_error: Option<String>,
    /// When this report was made, on the clock that the endpoints' `since` is read off.
    pub at: Time,
}
