//! gRPC's service config: parsing and validation (gRFC A2, A6, A21, A24).

mod method;

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

pub use method::{AdaptiveHedging, HedgingPolicy, MethodConfig, RetryPolicy};
use method::{Methods, RawMethod};

use crate::policy::FailoverConfig;

/// What a service tells its clients about how to call it.
///
/// Unknown fields are ignored; a known field with an invalid value refuses the whole config (gRFC A21). Policy configs
/// are checked by the policies themselves, when the config is put to use.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Policies in order of preference; `None` where the config does not say.
    pub load_balancing: Option<LbConfig>,
    /// How many retries the servers bear; `None` for no limit.
    pub retry_throttling: Option<RetryThrottling>,
    /// The service whose health is watched on each connection (gRFC A17); `None` for no watch.
    pub health_check: Option<String>,
    /// How many connections an address may have where its server allows too few streams on one (gRFC A105): 1 to 10.
    /// `None` where the config does not say.
    pub max_connections: Option<usize>,
    methods: Methods,
}

impl ServiceConfig {
    /// The config of the method at `path` (`/package.Service/Method`): that of the method, else of the service, else
    /// the default one, else nothing set.
    pub fn method(&self, path: &str) -> &MethodConfig {
        const NOTHING: &MethodConfig = &MethodConfig::NOTHING;
        self.configured(path).map_or(NOTHING, |config| config)
    }

    /// The same to be kept for as long as a call lasts; `None` where nothing is set.
    pub fn configured(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        self.methods.get(path)
    }

    /// The same config with other policies.
    #[must_use]
    pub fn with_load_balancing(self, config: LbConfig) -> Self {
        Self { load_balancing: Some(config), ..self }
    }
}

impl FromStr for ServiceConfig {
    type Err = ConfigError;

    fn from_str(json: &str) -> Result<Self, ConfigError> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let raw: Raw =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| ConfigError::from_json(&error))?;
        deserializer.end().map_err(|error| ConfigError::new("", error.to_string()))?;
        raw.check()
    }
}

/// `loadBalancingConfig`: policies by name with their configs, in order of preference (gRFC A24).
///
/// In the config of a policy with children it is the type of a `childPolicy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<BTreeMap<String, Value>>", into = "Vec<BTreeMap<String, Value>>")]
pub struct LbConfig(Vec<(String, Value)>);

impl TryFrom<Vec<BTreeMap<String, Value>>> for LbConfig {
    type Error = ConfigError;

    fn try_from(entries: Vec<BTreeMap<String, Value>>) -> Result<Self, ConfigError> {
        Self::parse(entries)
    }
}

impl From<LbConfig> for Vec<BTreeMap<String, Value>> {
    fn from(config: LbConfig) -> Self {
        config.0.into_iter().map(|entry| BTreeMap::from([entry])).collect()
    }
}

impl LbConfig {
    /// One policy with its default config.
    pub fn of(policy: impl Into<String>) -> Self {
        Self(vec![(policy.into(), Value::Object(serde_json::Map::new()))])
    }

    /// The same policies within groups of endpoints: as the `childPolicy` of `failover`, whose other settings are those of
    /// `failover`. A list that [goes by ranks](Self::goes_by_rank) itself stays as it is.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "such a value is always JSON")]
    pub fn by_rank(self, failover: &FailoverConfig) -> Self {
        if self.goes_by_rank() {
            return self;
        }
        let config = FailoverConfig { child_policy: self, ..failover.clone() };
        let config = serde_json::to_value(config).expect("it has text for keys, and numbers that JSON knows");
        Self(vec![("failover".to_owned(), config)])
    }

    /// Whether it names a policy that goes by the endpoints' ranks: `failover` or `priority`.
    pub fn goes_by_rank(&self) -> bool {
        const HEED_RANKS: [&str; 3] = ["failover", "priority", "priority_experimental"];
        self.iter().any(|(name, _)| HEED_RANKS.contains(&name))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, config)| (name.as_str(), config))
    }

    fn parse(entries: Vec<BTreeMap<String, Value>>) -> Result<Self, ConfigError> {
        let entries = entries.into_iter().enumerate().map(|(i, entry)| {
            let fields = entry.len();
            let mut entry = entry.into_iter();
            match (entry.next(), entry.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(ConfigError::new(format!("[{i}]"), format!("has {fields} fields, must have one: the policy"))),
            }
        });
        entries.collect::<Result<_, _>>().map(Self)
    }
}

impl Default for LbConfig {
    /// `pick_first`, as gRPC has it.
    fn default() -> Self {
        Self::of("pick_first")
    }
}

/// How many retries the servers bear (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryThrottling {
    /// Tokens at the start and at most: above 0, at most 1000.
    pub max_tokens: f64,
    /// Tokens that a success gives back: above 0, to three decimals.
    pub token_ratio: f64,
}

/// Why a service config was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service config: {}{problem}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    /// An error at `path` (such as `childPolicy[0].choiceCount`), relative to the config of the policy that raises it.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    /// Where in the JSON the error is, such as `methodConfig[2].timeout`; empty for the whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn from_json(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().to_string();
        Self::new(if path == "." { String::new() } else { path }, error.inner().to_string())
    }

    /// The same error, seen from the JSON around it.
    #[must_use]
    pub fn under(self, parent: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') || parent.is_empty() { "" } else { "." };
        Self { path: format!("{parent}{joint}{}", self.path), ..self }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    load_balancing_config: Option<Vec<BTreeMap<String, Value>>>,
    /// The older way to name a policy: case-insensitive, without a config, in force only where the newer is absent.
    load_balancing_policy: Option<String>,
    #[serde(default)]
    method_config: Vec<RawMethod>,
    retry_throttling: Option<RawThrottling>,
    health_check_config: Option<RawHealthCheck>,
    connection_scaling: Option<RawScaling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawScaling {
    max_connections_per_subchannel: Option<usize>,
}

/// The most connections of one address, whatever a config asks for: gRPC's default for the client's own cap.
const MAX_CONNECTIONS: usize = 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawThrottling {
    max_tokens: f64,
    token_ratio: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHealthCheck {
    service_name: Option<String>,
}

impl Raw {
    fn check(self) -> Result<ServiceConfig, ConfigError> {
        let by_list = self.load_balancing_config.map(LbConfig::parse).transpose();
        let by_list = by_list.map_err(|error| error.under("loadBalancingConfig"))?;
        let by_name = self.load_balancing_policy.map(|name| LbConfig::of(name.to_ascii_lowercase()));
        Ok(ServiceConfig {
            load_balancing: by_list.or(by_name),
            retry_throttling: self.retry_throttling.map(RawThrottling::check).transpose()?,
            health_check: self.health_check_config.and_then(|check| check.service_name),
            max_connections: self.connection_scaling.map(RawScaling::check).transpose()?.flatten(),
            methods: Methods::parse(self.method_config)?,
        })
    }
}

impl RawScaling {
    fn check(self) -> Result<Option<usize>, ConfigError> {
        match self.max_connections_per_subchannel {
            Some(0) => {
                Err(ConfigError::new("connectionScaling.maxConnectionsPerSubchannel", "is 0, must be at least 1"))
            }
            most => Ok(most.map(|most| most.min(MAX_CONNECTIONS))),
        }
    }
}

impl RawThrottling {
    fn check(self) -> Result<RetryThrottling, ConfigError> {
        if !(self.max_tokens > 0.0 && self.max_tokens <= 1_000.0) {
            return Err(ConfigError::new("retryThrottling.maxTokens", "must be above 0 and at most 1000"));
        }
        // Three decimals count, the rest is dropped (gRFC A6).
        let token_ratio = (self.token_ratio * 1_000.0).trunc() / 1_000.0;
        if token_ratio.is_nan() || token_ratio <= 0.0 {
            return Err(ConfigError::new("retryThrottling.tokenRatio", "must be at least 0.001"));
        }
        Ok(RetryThrottling { max_tokens: self.max_tokens, token_ratio })
    }
}

/// A protobuf duration in JSON: decimal seconds with at most nine decimals and an `s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    // Protobuf's bound: about ten thousand years.
    whole.parse().ok().filter(|&seconds: &u64| seconds <= 315_576_000_000).map(|seconds| Duration::new(seconds, nanos))
}

/// A protobuf duration in JSON as a field of a policy's config: `#[serde(deserialize_with = "json_duration")]`.
pub(crate) fn json_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no duration such as \"1.5s\"")))
}

/// The same the other way: `#[serde(serialize_with = "to_json_duration")]`.
pub(crate) fn to_json_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        json.parse::<ServiceConfig>().unwrap_err().path().to_owned()
    }

    #[test]
    fn by_rank_stands_over_policies_that_know_no_ranks() {
        let list = |json: &str| {
            format!(r#"{{"loadBalancingConfig":{json}}}"#).parse::<ServiceConfig>().unwrap().load_balancing.unwrap()
        };
        let child = list(r#"[{"x":{"a":1}},{"round_robin":{}}]"#);
        let failover = FailoverConfig {
            failback_delay: Duration::from_millis(1_500),
            when_all_out: crate::policy::WhenAllOut::FailFast,
            ..FailoverConfig::default()
        };
        let wrapped = child.clone().by_rank(&failover);
        let (name, config) = wrapped.iter().next().unwrap();
        assert_eq!(name, "failover");
        let read: FailoverConfig = serde_json::from_value(config.clone()).unwrap();
        assert_eq!(read, FailoverConfig { child_policy: child, ..failover.clone() });
        assert_eq!(wrapped.clone().by_rank(&failover), wrapped);
        assert_eq!(LbConfig::of("priority").by_rank(&failover), LbConfig::of("priority"));
    }

    #[test]
    fn a24_the_list_wins_over_the_older_name() {
        let config: ServiceConfig =
            r#"{"loadBalancingConfig":[{"x":{"a":1}},{"round_robin":{}}],"loadBalancingPolicy":"PICK_FIRST"}"#.parse().unwrap();
        let names: Vec<_> = config.load_balancing.as_ref().unwrap().iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["x", "round_robin"]);
        let older: ServiceConfig = r#"{"loadBalancingPolicy":"ROUND_ROBIN"}"#.parse().unwrap();
        assert_eq!(older.load_balancing, Some(LbConfig::of("round_robin")));
        assert_eq!("{}".parse::<ServiceConfig>().unwrap().load_balancing, None);
    }

    #[test]
    fn a21_unknown_fields_are_ignored_and_bad_known_ones_name_their_path() {
        assert!(r#"{"future":{"x":[]},"methodConfig":[{"name":[{}],"later":1}]}"#.parse::<ServiceConfig>().is_ok());
        assert_eq!(refused(r#"{"loadBalancingConfig":[{"a":{},"b":{}}]}"#), "loadBalancingConfig[0]");
        assert_eq!(refused(r#"{"methodConfig":[{"name":[{}]},{"name":[],"timeout":"1"}]}"#), "methodConfig[1].timeout");
        assert_eq!(refused(r#"{"methodConfig":[{"name":7}]}"#), "methodConfig[0].name");
        assert_eq!(refused(r#"{"retryThrottling":{"maxTokens":0,"tokenRatio":1}}"#), "retryThrottling.maxTokens");
        assert_eq!(refused(r#"{"retryThrottling":{"maxTokens":9,"tokenRatio":0.0001}}"#), "retryThrottling.tokenRatio");
        assert_eq!(refused(r"{} trailing"), "");
        let scaling = r#"{"connectionScaling":{"maxConnectionsPerSubchannel":0}}"#;
        assert_eq!(refused(scaling), "connectionScaling.maxConnectionsPerSubchannel");
        let many: ServiceConfig = scaling.replace('0', "99").parse().unwrap();
        assert_eq!(many.max_connections, Some(10), "capped (gRFC A105)");
    }

    #[test]
    fn durations_are_protobufs() {
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("0.000000001s"), Some(Duration::from_nanos(1)));
        for bad in ["1", "s", ".5s", "-1s", "1.0000000000s", "1e3s", "999999999999s", "1.5 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
