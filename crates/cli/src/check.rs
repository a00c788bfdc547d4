use std::{process::ExitCode, time::Duration};

use evenkeel_channel::{Channel, balance::Connectivity};
use evenkeel_config::parse_duration;
use evenkeel_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic::{Code, Request, Status};

/// Ask a server for its health, print the answer, and exit by it
///
/// Exit codes, as grpc-health-probe has them: 0 SERVING, 1 wrong arguments, 2 no connection, 3 the call failed,
/// 4 any other status.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The server: host:port, unix:PATH, or any other target
    #[arg(value_name = "ADDR")]
    address: String,
    /// The service to ask about; without it, the whole server
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// Stay, print each change, and exit by the last status when the server ends or on Ctrl-C
    #[arg(long)]
    watch: bool,
    /// How long connecting may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    rpc_timeout: Duration,
}

/// Why there is no status.
enum Failure {
    Arguments(String),
    Connection(String),
    Call(Status),
}

pub(crate) async fn run(args: Args) -> ExitCode {
    match answer(&args).await {
        Ok(ServingStatus::Serving) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(4),
        Err(failure) => failure.report(&args),
    }
}

async fn answer(args: &Args) -> Result<ServingStatus, Failure> {
    let channel = connect(args).await?;
    let client = HealthClient::new(channel);
    if args.watch { watch(args, client).await } else { check(args, client).await }
}

/// A channel that is connected, or why it cannot be.
async fn connect(args: &Args) -> Result<Channel, Failure> {
    let channel = Channel::builder(&args.address).build().map_err(|error| Failure::Arguments(error.to_string()))?;
    channel.connect();
    let mut reports = channel.reports();
    let settled =
        reports.wait_for(|report| matches!(report.connectivity, Connectivity::Ready | Connectivity::TransientFailure));
    let report = match tokio::time::timeout(args.connect_timeout, settled).await {
        Ok(Ok(report)) => report.clone(),
        _ => return Err(Failure::Connection(format!("not connected within {:?}", args.connect_timeout))),
    };
    if report.connectivity == Connectivity::Ready {
        return Ok(channel);
    }
    let reasons = report.endpoints.iter().map(|endpoint| format!("{}: {}", endpoint.address, endpoint.state.reason));
    let reasons: Vec<_> = reasons.chain(report.resolver_error.clone()).collect();
    Err(Failure::Connection(reasons.join("; ")))
}

async fn check(args: &Args, mut client: HealthClient<Channel>) -> Result<ServingStatus, Failure> {
    let mut request = Request::new(HealthCheckRequest { service: args.service.clone() });
    request.set_timeout(args.rpc_timeout);
    let response = client.check(request).await.map_err(Failure::Call)?;
    Ok(tell(response.into_inner()))
}

async fn watch(args: &Args, mut client: HealthClient<Channel>) -> Result<ServingStatus, Failure> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let request = HealthCheckRequest { service: args.service.clone() };
    let first = tokio::time::timeout(args.rpc_timeout, client.watch(request)).await;
    let first =
        first.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {:?}", args.rpc_timeout))));
    let mut changes = first.map_err(Failure::Call)?.into_inner();
    let mut last = ServingStatus::Unknown;
    loop {
        tokio::select! {
            change = changes.message() => match change.map_err(Failure::Call)? {
                Some(response) => last = tell(response),
                None => return Ok(last),
            },
            _ = &mut interrupted => return Ok(last),
        }
    }
}

/// Prints a status, by gRPC's name for it.
fn tell(response: HealthCheckResponse) -> ServingStatus {
    let status = response.status();
    println!("{}", status.as_str_name());
    status
}

impl Failure {
    fn report(&self, args: &Args) -> ExitCode {
        let address = &args.address;
        match self {
            Self::Arguments(why) => {
                eprintln!("evenkeel check: {why}");
                ExitCode::from(1)
            }
            Self::Connection(why) => {
                eprintln!("evenkeel check: cannot connect to {address}: {why}");
                ExitCode::from(2)
            }
            Self::Call(status) => {
                eprintln!("evenkeel check: {address}: {}", explain(status, &args.service));
                ExitCode::from(3)
            }
        }
    }
}

fn explain(status: &Status, service: &str) -> String {
    match status.code() {
        Code::Unimplemented => "the server has no grpc.health.v1 service".to_owned(),
        Code::NotFound => format!("the server does not know the service {service:?}"),
        code => format!("{code:?}: {}", status.message()),
    }
}
