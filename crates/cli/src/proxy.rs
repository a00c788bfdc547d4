use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::builder::PossibleValuesParser;
use evenkeel_channel::{
    Builder, Channel,
    balance::{CheckSettings, HealthCheck, Policies, UnknownService},
    checker::Probe,
};
use evenkeel_config::{EndpointCheck, EndpointCheckKind, File, Proxy as Config, nearest, parse_duration};
use evenkeel_proxy::{Proxy, Settings};
use serde_json::{Value, json};

use crate::{signals, supervise::Proxies};

/// Without a policy from the command line or the service config, calls go where the fewest are running.
const DEFAULT_POLICY: &str = "least_request";

/// Balance the gRPC calls that come in over a service's endpoints, call by call
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
pub(crate) struct Args {
    /// The service: dns:///name:port, ipv4:ADDR:PORT,…, ipv6:…, unix:PATH, or host:port,host:port…
    #[arg(required_unless_present = "config")]
    target: Option<String>,
    /// A service that stands by for when the one before it cannot take all calls: the first is group 1, and so on. The
    /// policy then works within each group, under `failover`
    #[arg(long, value_name = "TARGET")]
    standby: Vec<String>,
    /// Serve each [proxy.NAME] of a TOML file, as `evenkeel supervise` does, in place of what is said here
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "standby"])]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How calls are placed, in place of what the service config says [default: least_request]
    #[arg(long, value_parser = policy_names())]
    policy: Option<String>,
    /// Watch the health of this service on every backend, and call only those that say SERVING. Without it, the
    /// whole server's health counts wherever a backend implements it
    #[arg(long, value_name = "NAME", conflicts_with = "no_health_check")]
    health_service: Option<String>,
    /// Take a connection for proof of health
    #[arg(long)]
    no_health_check: bool,
    /// Check the endpoints beside that, over connections of the checks' own: grpc, grpc:SERVICE,
    /// grpc-watch, grpc-watch:SERVICE, http:PATH, http2:PATH or tcp
    #[arg(long, value_name = "KIND", value_parser = parse_check)]
    check: Option<EndpointCheck>,
    /// The port that is checked, in place of that which takes the calls
    #[arg(long, value_name = "PORT", requires = "check")]
    check_port: Option<u16>,
    /// From one check to the next, while all is well
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration, requires = "check")]
    check_interval: Duration,
    /// A gRPC service config, as a JSON file: policies, retries, time-outs
    #[arg(long, value_name = "FILE")]
    service_config: Option<PathBuf>,
    /// How long running calls may take to end after SIGTERM, such as 10s or 500ms
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,
}

pub(crate) fn policy_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Policies::standard().names())
}

pub(crate) async fn run(args: Args) -> ExitCode {
    match serve(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("evenkeel proxy: calls were cut off at the drain time-out");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("evenkeel proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<bool, String> {
    // Before anybody can know that we run, so that no signal is missed.
    let terminated = signals::terminated().map_err(|error| format!("cannot listen for signals: {error}"))?;
    if let Some(path) = &args.config {
        return serve_file(path, terminated).await;
    }
    let target = args.target.clone().unwrap_or_default();
    let channel = channel(Channel::builder(&target), &args.said(), false)?;
    let settings = Settings::default().with_drain_timeout(args.drain_timeout);
    let proxy = Proxy::bind(args.listen, channel, settings)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}; choose another with --listen", args.listen))?;
    announce(proxy.local_addr());
    tracing::info!(target: "evenkeel::proxy", listen = %proxy.local_addr(), target, "proxy is serving");
    Ok(proxy.serve(terminated).await)
}

async fn serve_file(path: &Path, terminated: impl Future<Output = ()>) -> Result<bool, String> {
    let file = File::read(path).map_err(|error| error.to_string())?;
    if file.proxies.is_empty() {
        return Err(format!("{}: it has no [proxy.NAME]", path.display()));
    }
    let mut proxies = Proxies::bind(&file, None).await?;
    terminated.await;
    proxies.drain();
    Ok(proxies.ended().await)
}

/// The channel of a proxy. That of a supervised service goes by the ranks of its replicas, so that standbys get calls only
/// while no primary serves.
pub(crate) fn channel(mut builder: Builder, proxy: &Config, has_ranks: bool) -> Result<Channel, String> {
    builder = builder.default_policy(DEFAULT_POLICY);
    builder = proxy.standby.iter().fold(builder, Builder::standby);
    let json = proxy
        .service_config
        .as_deref()
        .map(|path| std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display())));
    let mut json = json.transpose()?;
    if has_ranks {
        json = Some(ranked(json.as_deref(), proxy.policy.as_deref())?);
    }
    if let Some(json) = json {
        let path = proxy.service_config.as_deref().map_or(String::new(), |path| format!("{}: ", path.display()));
        builder = builder.service_config(&json).map_err(|error| format!("{path}{error}"))?;
    }
    if let (Some(policy), false) = (&proxy.policy, has_ranks) {
        builder = builder.policy(policy);
    }
    if let Some(check) = health_check(proxy) {
        builder = builder.health_check(check);
    }
    if let Some(check) = &proxy.check {
        builder = builder.check(probe(check), settings(check));
    }
    builder.build().map_err(|error| error.to_string())
}

/// A service config with its policy under one that goes by the endpoints' ranks.
fn ranked(json: Option<&str>, policy: Option<&str>) -> Result<String, String> {
    let mut config: Value =
        serde_json::from_str(json.unwrap_or("{}")).map_err(|error| format!("service_config: {error}"))?;
    let Some(fields) = config.as_object_mut() else { return Err("service_config: it is no JSON object".to_owned()) };
    let named = |name: &str| json!([{ name: {} }]);
    let child = match (policy, fields.remove("loadBalancingConfig")) {
        (Some(policy), _) => named(policy),
        (None, Some(child)) => child,
        (None, None) => named(DEFAULT_POLICY),
    };
    fields.insert("loadBalancingConfig".to_owned(), json!([{ "priority": { "childPolicy": child } }]));
    Ok(config.to_string())
}

fn health_check(proxy: &Config) -> Option<HealthCheck> {
    if !proxy.health_check {
        return None;
    }
    Some(match &proxy.health_service {
        Some(service) => HealthCheck { service: service.clone(), unknown: UnknownService::IsUnhealthy },
        None => HealthCheck { service: String::new(), unknown: UnknownService::IsUnchecked },
    })
}

fn probe(check: &EndpointCheck) -> Probe {
    let probe = match check.kind {
        EndpointCheckKind::Grpc => Probe::grpc(&check.service),
        EndpointCheckKind::GrpcWatch => Probe::watch(&check.service),
        EndpointCheckKind::Http => Probe::http(&check.path),
        EndpointCheckKind::Http2 => Probe::http2(&check.path),
        EndpointCheckKind::Tcp => Probe::tcp(),
    };
    match check.port {
        Some(port) => probe.port(port),
        None => probe,
    }
}

fn settings(check: &EndpointCheck) -> CheckSettings {
    let mut settings = CheckSettings::every(check.interval);
    (settings.timeout, settings.rise, settings.fall) = (check.timeout, check.rise, check.fall);
    settings
}

/// A check as the command line says it: its kind, and after a colon what it asks for.
fn parse_check(text: &str) -> Result<EndpointCheck, String> {
    let (kind, asked) = text.split_once(':').map_or((text, None), |(kind, asked)| (kind, Some(asked.to_owned())));
    let kinds = [
        ("grpc", EndpointCheckKind::Grpc),
        ("grpc-watch", EndpointCheckKind::GrpcWatch),
        ("http", EndpointCheckKind::Http),
        ("http2", EndpointCheckKind::Http2),
        ("tcp", EndpointCheckKind::Tcp),
    ];
    let names = kinds.map(|(name, _)| name);
    let found = kinds.into_iter().find(|(name, _)| *name == kind).map(|(_, kind)| kind);
    let kind = found.ok_or_else(|| match nearest(kind, &names, 2) {
        Some(word) => format!("there is no check {kind:?}; did you mean {word:?}?"),
        None => format!("there is no check {kind:?}; there are {}", names.join(", ")),
    })?;
    let check = EndpointCheck { kind, ..EndpointCheck::default() };
    Ok(match (kind, asked) {
        (_, None) => check,
        (EndpointCheckKind::Grpc | EndpointCheckKind::GrpcWatch, Some(service)) => EndpointCheck { service, ..check },
        (EndpointCheckKind::Http | EndpointCheckKind::Http2, Some(path)) => EndpointCheck { path, ..check },
        (EndpointCheckKind::Tcp, Some(_)) => return Err("a TCP check asks for nothing: write tcp".to_owned()),
    })
}

impl Args {
    /// What a file would say.
    fn said(&self) -> Config {
        Config {
            listen: self.listen,
            service: None,
            target: self.target.clone(),
            standby: self.standby.clone(),
            policy: self.policy.clone(),
            health_check: !self.no_health_check,
            health_service: self.health_service.clone(),
            check: self.check.clone().map(|check| EndpointCheck {
                port: self.check_port,
                interval: self.check_interval,
                ..check
            }),
            service_config: self.service_config.clone(),
            drain_timeout: self.drain_timeout,
        }
    }
}

/// Says where the proxy listens: for people, and for programs that asked for any free port.
fn announce(address: SocketAddr) {
    let mut stdout = std::io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_from_the_command_line() {
        let check = parse_check("http:/readyz?full=1").unwrap();
        assert_eq!((check.kind, check.path.as_str()), (EndpointCheckKind::Http, "/readyz?full=1"));
        let check = parse_check("grpc-watch:shop.Cart").unwrap();
        assert_eq!((check.kind, check.service.as_str()), (EndpointCheckKind::GrpcWatch, "shop.Cart"));
        assert_eq!(parse_check("grpc"), Ok(EndpointCheck::default()));
        assert_eq!(parse_check("htp:/").unwrap_err(), r#"there is no check "htp"; did you mean "http"?"#);
        assert!(parse_check("tcp:80").is_err() && parse_check("").is_err());
    }

    #[test]
    fn the_policy_of_a_supervised_service_goes_under_one_by_ranks() {
        let policy = |json, policy| {
            let config: Value = serde_json::from_str(&ranked(json, policy).unwrap()).unwrap();
            config["loadBalancingConfig"][0]["priority"]["childPolicy"][0].to_string()
        };
        let round_robin = r#"{"loadBalancingConfig":[{"round_robin":{}}],"methodConfig":[]}"#;
        assert_eq!(policy(None, None), r#"{"least_request":{}}"#);
        assert_eq!(policy(Some(round_robin), None), r#"{"round_robin":{}}"#);
        assert_eq!(policy(Some(round_robin), Some("random")), r#"{"random":{}}"#);
        assert!(ranked(Some(round_robin), None).unwrap().contains("methodConfig"));
        assert!(ranked(Some("[]"), None).is_err());
    }
}
