use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::builder::PossibleValuesParser;
use evenkeel_channel::{
    Channel,
    balance::{HealthCheck, Policies, UnknownService},
};
use evenkeel_config::parse_duration;
use evenkeel_proxy::{Proxy, Settings};

use crate::signals;

/// Without a policy from the command line or the service config, calls go where the fewest are running.
const DEFAULT_POLICY: &str = "least_request";

/// Balance the gRPC calls that come in over a service's endpoints, call by call
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
pub(crate) struct Args {
    /// The service: dns:///name:port, ipv4:ADDR:PORT,…, ipv6:…, unix:PATH, or host:port,host:port…
    target: String,
    /// A service that stands by for when the one before it cannot take all calls: the first is group 1, and so on. The
    /// policy then works within each group, under `failover`
    #[arg(long, value_name = "TARGET")]
    standby: Vec<String>,
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
    let channel = channel(&args)?;
    let settings = Settings::default().with_drain_timeout(args.drain_timeout);
    let proxy = Proxy::bind(args.listen, channel, settings)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}; choose another with --listen", args.listen))?;
    announce(proxy.local_addr());
    tracing::info!(target: "evenkeel::proxy", listen = %proxy.local_addr(), target = args.target, "proxy is serving");
    Ok(proxy.serve(terminated).await)
}

fn channel(args: &Args) -> Result<Channel, String> {
    let mut builder = Channel::builder(&args.target).default_policy(DEFAULT_POLICY);
    builder = args.standby.iter().fold(builder, |builder, target| builder.standby(target));
    if let Some(path) = &args.service_config {
        let json = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        builder = builder.service_config(&json).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(policy) = &args.policy {
        builder = builder.policy(policy);
    }
    if let Some(check) = health_check(args) {
        builder = builder.health_check(check);
    }
    builder.build().map_err(|error| error.to_string())
}

fn health_check(args: &Args) -> Option<HealthCheck> {
    if args.no_health_check {
        return None;
    }
    Some(match &args.health_service {
        Some(service) => HealthCheck { service: service.clone(), unknown: UnknownService::IsUnhealthy },
        None => HealthCheck { service: String::new(), unknown: UnknownService::IsUnchecked },
    })
}

/// Says where the proxy listens: for people, and for programs that asked for any free port.
fn announce(address: SocketAddr) {
    let mut stdout = std::io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}
