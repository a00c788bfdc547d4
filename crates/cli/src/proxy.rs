mod settings;

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::builder::PossibleValuesParser;
use evenkeel_channel::{
    Builder, Channel, Tls, TlsError,
    balance::{
        CheckSettings, HealthCheck, Policies, UnknownService,
        policy::{FailoverConfig, Standby, WhenAllOut},
    },
    checker::Probe,
};
use evenkeel_config::{
    self as config, BackendTls, EndpointCheck, EndpointCheckKind, File, Proxy as Config, nearest, parse_duration,
};
use evenkeel_proxy::Proxy;
use evenkeel_supervisor::control::{Control, default_path};

use crate::{
    signals,
    supervise::{Answers, Proxies},
};

use settings::SettingsArgs;
pub(crate) use settings::settings;

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
    /// Where `evenkeel status` and `switch` find the proxies of the file [default: as the file says, or
    /// $XDG_RUNTIME_DIR/evenkeel/NAME.sock, or /run/evenkeel/NAME.sock]
    #[arg(long, value_name = "PATH", requires = "config")]
    control: Option<PathBuf>,
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
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    backend_tls: BackendTlsArgs,
    /// A gRPC service config, as a JSON file: policies, retries, time-outs
    #[arg(long, value_name = "FILE")]
    service_config: Option<PathBuf>,
    /// How long running calls may take to end after SIGTERM, such as 10s or 500ms
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,
}

/// TLS towards backends.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_field_names, reason = "their names are those of the flags")]
struct BackendTlsArgs {
    /// Speak TLS with the backends
    #[arg(long)]
    backend_tls: bool,
    /// Trust the certificates in this PEM file alone, in place of the system's roots
    #[arg(long, value_name = "FILE", requires = "backend_tls")]
    backend_ca: Option<PathBuf>,
    /// The name that backends' certificates must be for [default: the target's host]
    #[arg(long, value_name = "NAME", requires = "backend_tls")]
    backend_name: Option<String>,
    /// Show the backends the certificate chain in this PEM file (mTLS)
    #[arg(long, value_name = "FILE", requires_all = ["backend_tls", "backend_key"])]
    backend_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "backend_cert")]
    backend_key: Option<PathBuf>,
}

impl BackendTlsArgs {
    /// What a file would say.
    fn said(&self) -> Option<BackendTls> {
        let Self { backend_ca: ca, backend_name: name, backend_cert: cert, backend_key: key, .. } = self;
        let said = BackendTls { ca: ca.clone(), name: name.clone(), cert: cert.clone(), key: key.clone() };
        self.backend_tls.then_some(said)
    }
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
        return serve_file(path, args.control.as_deref(), terminated).await;
    }
    let target = args.target.clone().unwrap_or_default();
    let said = args.said();
    let (channel, settings) = (channel(Channel::builder(&target), &said)?, settings(&said)?);
    let proxy = Proxy::bind(args.listen, channel, settings)
        .map_err(|error| format!("cannot listen on {}: {error}; choose another with --listen", args.listen))?;
    announce(proxy.local_addr());
    tracing::info!(target: "evenkeel::proxy", listen = %proxy.local_addr(), target, "proxy is serving");
    Ok(proxy.serve(terminated).await)
}

async fn serve_file(path: &Path, control: Option<&Path>, terminated: impl Future<Output = ()>) -> Result<bool, String> {
    let file = File::read(path).map_err(|error| error.to_string())?;
    if file.proxies.is_empty() {
        return Err(format!("{}: it has no [proxy.NAME]", path.display()));
    }
    let mut proxies = Proxies::bind(&file, None)?;
    let answers = Answers::new(None, proxies.fronts());
    let _control = match control.or(file.control.as_deref()) {
        Some(socket) => Some(Control::serve(socket, answers).await.map_err(|error| error.to_string())?),
        None => by_default(&default_path(path), answers).await,
    };
    terminated.await;
    proxies.drain();
    Ok(proxies.ended().await)
}

/// A control socket that nobody has asked for: a proxy serves without it, too, say where it may write nowhere.
async fn by_default(socket: &Path, answers: Answers) -> Option<Control> {
    let served = Control::serve(socket, answers).await;
    served
        .inspect_err(
            |error| tracing::warn!(target: "evenkeel::proxy", %error, "no `evenkeel status` and `switch` here"),
        )
        .ok()
}

/// The channel of a proxy.
pub(crate) fn channel(mut builder: Builder, proxy: &Config) -> Result<Channel, String> {
    builder = builder.default_policy(DEFAULT_POLICY);
    builder = proxy.standby.iter().fold(builder, Builder::standby);
    if let Some(path) = &proxy.service_config {
        let named = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
        let json = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}", named(&error)))?;
        builder = builder.service_config(&json).map_err(|error| named(&error))?;
    }
    if let Some(policy) = &proxy.policy {
        builder = builder.policy(policy);
    }
    if let Some(said) = &proxy.failover {
        builder = builder.failover(failover(said));
    }
    if let Some(check) = health_check(proxy) {
        builder = builder.health_check(check);
    }
    let tls = proxy.backend_tls.as_ref().map(backend_tls);
    if let Some(check) = &proxy.check {
        // Another port than that of the calls is one for such checks, in plain text.
        let tls = tls.clone().filter(|_| check.port.is_none());
        builder = builder.check(probe(check, tls).map_err(|error| error.to_string())?, check_settings(check));
    }
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    builder.build().map_err(|error| error.to_string())
}

/// What a file says of failover, over what the policy has by default.
fn failover(said: &config::Failover) -> FailoverConfig {
    let mut to = FailoverConfig::default();
    to.overprovisioning_factor = said.overprovisioning_factor.unwrap_or(to.overprovisioning_factor);
    to.failover_timeout = said.failover_timeout.unwrap_or(to.failover_timeout);
    to.failback_delay = said.failback_delay.unwrap_or(to.failback_delay);
    to.failback_ramp = said.failback_ramp.unwrap_or(to.failback_ramp);
    to.panic_threshold = said.panic_threshold.unwrap_or(to.panic_threshold);
    to.when_all_out = said.when_all_out.map_or(to.when_all_out, |what| match what {
        config::WhenAllOut::Panic => WhenAllOut::Panic,
        config::WhenAllOut::FailFast => WhenAllOut::FailFast,
        config::WhenAllOut::Wait => WhenAllOut::Wait,
    });
    to.standby = said.standby.map_or(to.standby, |standby| match standby {
        config::Standby::Hot => Standby::Hot,
        config::Standby::Cold => Standby::Cold,
    });
    to
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

fn backend_tls(said: &BackendTls) -> Tls {
    let mut tls = Tls::new();
    if let Some(ca) = &said.ca {
        tls = tls.ca_file(ca);
    }
    if let Some(name) = &said.name {
        tls = tls.server_name(name);
    }
    if let (Some(cert), Some(key)) = (&said.cert, &said.key) {
        tls = tls.identity_files(cert, key);
    }
    tls
}

fn probe(check: &EndpointCheck, tls: Option<Tls>) -> Result<Probe, TlsError> {
    let probe = match check.kind {
        EndpointCheckKind::Grpc => Probe::grpc(&check.service),
        EndpointCheckKind::GrpcWatch => Probe::watch(&check.service),
        EndpointCheckKind::Http => Probe::http(&check.path),
        EndpointCheckKind::Http2 => Probe::http2(&check.path),
        EndpointCheckKind::Tcp => Probe::tcp(),
    };
    let probe = match check.port {
        Some(port) => probe.port(port),
        None => probe,
    };
    match tls {
        Some(tls) => probe.tls(tls),
        None => Ok(probe),
    }
}

fn check_settings(check: &EndpointCheck) -> CheckSettings {
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
            failover: None,
            policy: self.policy.clone(),
            health_check: !self.no_health_check,
            health_service: self.health_service.clone(),
            check: self.check.clone().map(|check| EndpointCheck {
                port: self.check_port,
                interval: self.check_interval,
                ..check
            }),
            tls: self.settings.tls(),
            workers: self.settings.workers(),
            limits: self.settings.limits(),
            backend_tls: self.backend_tls.said(),
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
    fn what_a_file_does_not_say_of_failover_is_as_the_policy_has_it() {
        assert_eq!(failover(&config::Failover::default()), FailoverConfig::default());
        let said = config::Failover {
            failback_delay: Some(Duration::ZERO),
            when_all_out: Some(config::WhenAllOut::Wait),
            ..config::Failover::default()
        };
        let mut expected = FailoverConfig::default();
        (expected.failback_delay, expected.when_all_out) = (Duration::ZERO, WhenAllOut::Wait);
        assert_eq!(failover(&said), expected);
    }
}
