use evenkeel_config::nearest;
use serde::{Deserialize, Serialize};

/// What an operator asks for. `NAME` is a service, `NAME/2` one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Restart it, one replica at a time.
    Restart(String),
    /// Stop it, until it is started.
    Stop(String),
    /// Start what does not run, and forget earlier failures.
    Start(String),
}

/// Why an order was not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// There is no such service.
    #[error("there is no service `{name}`{hint}")]
    UnknownService {
        /// As ordered.
        name: String,
        /// What there is.
        hint: String,
    },
    /// The service has no such replica.
    #[error("`{service}` has no replica `{replica}`; it has {count}, from 0")]
    UnknownReplica {
        /// As ordered.
        service: String,
        /// As ordered.
        replica: String,
        /// How many there are.
        count: usize,
    },
    /// Everything is being stopped.
    #[error("the supervisor is stopping everything")]
    ShuttingDown,
}

impl Order {
    /// The service, and what stands behind a slash.
    pub(super) fn target(&self) -> (&str, Option<&str>) {
        let (Self::Restart(target) | Self::Stop(target) | Self::Start(target)) = self;
        target.split_once('/').map_or((target, None), |(service, replica)| (service, Some(replica)))
    }
}

impl OrderError {
    pub(super) fn unknown_service(name: &str, known: &[&str]) -> Self {
        let hint = match nearest(name, known, 2) {
            Some(near) => format!(": did you mean `{near}`?"),
            None => format!("; there are {}", known.join(", ")),
        };
        Self::UnknownService { name: name.to_owned(), hint }
    }
}
