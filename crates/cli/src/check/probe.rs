//! One question to one server, and its answer.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use evenkeel_balance::{Code, Status};
use evenkeel_naming::Target;
use evenkeel_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
};

use super::{
    failure::{Cause, Failure},
    rpc::{Call, CallSettings},
    server::{Facts, Server, Way},
};

/// How servers are asked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) service: String,
    pub(super) way: Way,
    pub(super) call: CallSettings,
    pub(super) rpc_timeout: Duration,
}

/// How a service is, by its number on the wire: servers may know more than we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health(i32);

/// What became of a question.
#[derive(Clone, Debug)]
pub(super) struct Answer<T = Health> {
    pub(super) outcome: Result<T, Failure>,
    pub(super) facts: Option<Facts>,
    /// How long connecting took, where it succeeded, and the call.
    pub(super) connecting: Option<Duration>,
    pub(super) calling: Option<Duration>,
}

/// Every service of a server by its name, and how it is.
pub(super) type Services = BTreeMap<String, Health>;

/// A connected server, and how long that took.
struct Reached {
    server: Server,
    connecting: Duration,
    at: Instant,
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const LIST: &str = "/grpc.health.v1.Health/List";

impl Health {
    pub(super) fn is_serving(self) -> bool {
        self.0 == ServingStatus::Serving as i32
    }

    fn exit_code(self) -> u8 {
        if self.is_serving() { 0 } else { 4 }
    }
}

/// The protocol's name, or the number where it has none.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ServingStatus::try_from(self.0) {
            Ok(status) => f.write_str(status.as_str_name()),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl<T> Answer<T> {
    /// There was no connection.
    pub(super) fn failed(failure: Failure) -> Self {
        Self { outcome: Err(failure), facts: None, connecting: None, calling: None }
    }

    /// The same but for what came of it.
    pub(super) fn with<U>(&self, outcome: Result<U, Failure>) -> Answer<U> {
        let (connecting, calling) = (self.connecting, self.calling);
        Answer { outcome, facts: self.facts.clone(), connecting, calling }
    }
}

impl Answer {
    /// As grpc-health-probe exits.
    pub(super) fn exit_code(&self) -> u8 {
        match &self.outcome {
            Ok(health) => health.exit_code(),
            Err(failure) => failure.cause.exit_code(),
        }
    }
}

impl Answer<Services> {
    /// That of the worst service; a list without any says nothing good.
    pub(super) fn exit_code(&self) -> u8 {
        match &self.outcome {
            Ok(services) => services.values().map(|health| health.exit_code()).max().unwrap_or(4),
            Err(failure) => failure.cause.exit_code(),
        }
    }
}

impl Reached {
    fn answer<T>(self, outcome: Result<T, Failure>) -> Answer<T> {
        let (connecting, calling) = (Some(self.connecting), Some(self.at.elapsed()));
        Answer { outcome, facts: Some(self.server.facts), connecting, calling }
    }
}

impl Plan {
    /// Connects and asks once.
    pub(super) async fn ask(&self, target: &Target) -> Answer {
        match self.reach(target).await {
            Ok(reached) => {
                let outcome = self.check(&reached.server).await;
                reached.answer(outcome)
            }
            Err(failure) => Answer::failed(failure),
        }
    }

    /// Connects and asks for every service.
    pub(super) async fn ask_for_all(&self, target: &Target) -> Answer<Services> {
        match self.reach(target).await {
            Ok(reached) => {
                let outcome = self.list(&reached.server).await;
                reached.answer(outcome)
            }
            Err(failure) => Answer::failed(failure),
        }
    }

    async fn reach(&self, target: &Target) -> Result<Reached, Failure> {
        let begun = Instant::now();
        let server = self.way.connect(target).await?;
        Ok(Reached { server, connecting: begun.elapsed(), at: Instant::now() })
    }

    /// Asks a connected server once. Where it does not know the service, it is asked which ones it knows.
    pub(super) async fn check(&self, server: &Server) -> Result<Health, Failure> {
        match self.call_check(server).await {
            Err(failure) if failure.cause == Cause::UnknownService => {
                let known = self.list(server).await.unwrap_or_default();
                let names: Vec<_> = known.into_keys().filter(|name| !name.is_empty()).collect();
                Err(match known_instead(&self.service, &names) {
                    Some(advice) => failure.advise(advice),
                    None => failure,
                })
            }
            other => other,
        }
    }

    /// Asks a connected server once, and nothing more.
    pub(super) async fn call_check(&self, server: &Server) -> Result<Health, Failure> {
        let request = HealthCheckRequest { service: self.service.clone() };
        let reply: HealthCheckResponse =
            self.within(server.unary(CHECK, &request, &self.call, self.rpc_timeout)).await?;
        Ok(Health(reply.status))
    }

    /// Every service of a connected server, and how it is.
    pub(super) async fn list(&self, server: &Server) -> Result<Services, Failure> {
        let reply: HealthListResponse =
            self.within(server.unary(LIST, &HealthListRequest {}, &self.call, self.rpc_timeout)).await?;
        Ok(reply.statuses.into_iter().map(|(name, status)| (name, Health(status.status))).collect())
    }

    /// Asks a connected server for every change. The first must come within the time-out of calls.
    pub(super) async fn watch(&self, server: &Server) -> Result<(Health, Changes), Failure> {
        let request = HealthCheckRequest { service: self.service.clone() };
        let begin = async {
            let mut changes = Changes(server.call(WATCH, &request, &self.call, None).await?);
            Ok((changes.next().await?, changes))
        };
        self.within(begin).await
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
        let begun = Instant::now();
        match tokio::time::timeout(self.rpc_timeout, call).await {
            Ok(Ok(reply)) => Ok(reply),
            // A server that keeps the deadline too may give up a moment before our own timer does.
            Ok(Err(status)) if status.code == Code::Cancelled && begun.elapsed() >= self.rpc_timeout => {
                Err(self.too_late())
            }
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Failure {
        let late = Failure::new(Cause::Deadline, format!("no answer to the call within {:?}", self.rpc_timeout));
        Failure { status: Some((Code::DeadlineExceeded, String::new())), ..late }
            .advise("the server may be overloaded or hang; --rpc-timeout gives it more time")
    }

    /// Why a call has no reply.
    pub(super) fn failed(&self, status: &Status) -> Failure {
        let failure = Failure::of_call(status.code, &status.message, &self.service);
        match failure.cause {
            Cause::Unimplemented if self.call.gzip => failure.advise("the server may not take gzip: try without -gzip"),
            _ => failure,
        }
    }
}

/// The further answers to a Watch.
#[derive(Debug)]
pub(super) struct Changes(Call);

impl Changes {
    pub(super) async fn next(&mut self) -> Result<Health, Status> {
        match self.0.next::<HealthCheckResponse>().await? {
            Some(reply) => Ok(Health(reply.status)),
            None => Err(Status::new(Code::Unavailable, "the server ended the Watch")),
        }
    }
}

/// What to say of the services that are known in place of `service`.
fn known_instead(service: &str, known: &[String]) -> Option<String> {
    const FEW: usize = 5;
    if let Some(near) = nearest(service, known) {
        return Some(format!("did you mean {near:?}?"));
    }
    let more = if known.len() > FEW { format!(" and {} more (--list)", known.len() - FEW) } else { String::new() };
    let few = known.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    (!known.is_empty()).then(|| format!("it knows {few}{more}"))
}

/// The name of `known` that is most like `word`, if one is.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    const LIKE: f64 = 0.8;
    let likeness = |name: &String| {
        // A service is often named without its package, or by another case.
        let last = name.rsplit('.').next().unwrap_or(name);
        let (word, name, last) = (word.to_lowercase(), name.to_lowercase(), last.to_lowercase());
        strsim::normalized_damerau_levenshtein(&word, &name).max(strsim::normalized_damerau_levenshtein(&word, &last))
    };
    let scored = known.iter().map(|name| (likeness(name), name)).filter(|(score, _)| *score >= LIKE);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_or_a_few_are_named() {
        let known: Vec<String> = ["greeter.Greeter", "a.B"].map(str::to_owned).into();
        for near in ["greeter.Greater", "Greeter", "greeter.greeter"] {
            assert_eq!(known_instead(near, &known).unwrap(), "did you mean \"greeter.Greeter\"?");
        }
        assert_eq!(known_instead("nobody.Knows", &known).unwrap(), "it knows greeter.Greeter, a.B");
        assert_eq!(known_instead("x", &[]), None);
        let many: Vec<String> = (0..7).map(|n| format!("service.Number{n}")).collect();
        assert!(known_instead("x", &many).unwrap().ends_with("and 2 more (--list)"));
    }

    #[test]
    fn statuses_that_nobody_has_defined_are_told_by_their_number() {
        assert_eq!(Health(2).to_string(), "NOT_SERVING");
        assert_eq!(Health(9).to_string(), "9");
        assert!(Health(1).is_serving() && !Health(0).is_serving());
    }
}
