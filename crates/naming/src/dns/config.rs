use std::time::Duration;

use evenkeel_balance::{Backoff, Entropy};
use tracing::{info, warn};

use super::{ServiceConfig, answer::Texts};
use crate::{ConfigClient, ResolveError};

/// What is known about the service config of a name: the last that was found, through failures of its own.
pub(super) struct Config {
    client: ConfigClient,
    known: ServiceConfig,
    error: Option<ResolveError>,
    /// Failed look-ups since the last that told something.
    failures: u32,
    backoff: Backoff,
}

impl Config {
    pub(super) fn new(client: ConfigClient, backoff: Backoff) -> Self {
        Self { client, known: None, error: None, failures: 0, backoff }
    }

    pub(super) fn known(&self) -> &ServiceConfig {
        &self.known
    }

    /// Takes what a look-up of `name` found, `None` if it looked for no config, and gives the time until the next.
    pub(super) fn handle(
        &mut self,
        name: &str,
        found: Option<Result<Texts, ResolveError>>,
        entropy: &mut Entropy,
    ) -> Duration {
        match found {
            Some(Err(error)) => self.fail(name, error, entropy),
            Some(Ok(texts)) => self.accept(name, &texts),
            None => self.accept(name, &Texts::default()),
        }
    }

    fn accept(&mut self, name: &str, texts: &Texts) -> Duration {
        self.failures = 0;
        self.error = None;
        let config = self.client.read(&texts.name, &texts.values);
        if config != self.known {
            match &config {
                Some(Ok(json)) => info!(name, config = json, "service config found"),
                Some(Err(error)) => warn!(name, %error, "service config refused; the one before stays in force"),
                None => info!(name, "no service config any more; the one before stays in force"),
            }
            self.known = config;
        }
        texts.ttl.unwrap_or(Duration::MAX)
    }

    fn fail(&mut self, name: &str, error: ResolveError, entropy: &mut Entropy) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let delay = self.backoff.delay(self.failures, entropy);
        if self.error.as_ref() != Some(&error) {
            warn!(name, %error, retry_in = ?delay, "look-up of the service config failed; the one before stays in force");
            self.error = Some(error);
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    fn texts(value: &str) -> Texts {
        let ttl = Some(Duration::from_secs(30));
        Texts { name: "_grpc_config.web".to_owned(), values: vec![value.into()], ttl }
    }

    #[test]
    fn a_config_that_cannot_be_looked_up_stays_and_is_tried_again_later_and_later() {
        let client = ConfigClient { percentile: 0, hostname: "here".to_owned() };
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(9), 1.6, 0.2);
        let mut config = Config::new(client, backoff);
        let handle = |config: &mut Config, found| config.handle("web", found, &mut Entropy::new(1));
        let servfail = || Some(Err(ResolveError::new(FailureKind::Server, "SERVFAIL")));

        let next = handle(&mut config, Some(Ok(texts(r#"grpc_config=[{"serviceConfig":{}}]"#))));
        assert_eq!((next, config.known()), (Duration::from_secs(30), &Some(Ok("{}".to_owned()))));
        let (first, second) = (handle(&mut config, servfail()), handle(&mut config, servfail()));
        assert!(first < second && second < Duration::from_secs(3), "{first:?}, then {second:?}");
        assert_eq!(config.known(), &Some(Ok("{}".to_owned())));

        handle(&mut config, Some(Ok(texts("grpc_config=[{}]"))));
        assert!(matches!(config.known(), Some(Err(_))));
        assert_eq!(handle(&mut config, servfail()), first, "an answer starts the delays over");
        assert_eq!(handle(&mut config, None), Duration::MAX);
        assert_eq!(config.known(), &None);
    }
}
