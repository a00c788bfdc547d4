//! A load on Evenkeel's channel that tells what became of every call.
//!
//! It starts unary calls of `evenkeel.demo.v1.Echo` at a fixed rate, whatever becomes of the earlier ones, and writes one
//! CSV line for each: number, start (Unix nanoseconds), latency (microseconds), status code, answering backend, status
//! message. The first five are those of `echo-load`, the load on grpc-go's channel.
//!
//! ```text
//! evenkeel-interop-load --target 127.0.0.1:50051,127.0.0.1:50052 --policy round_robin --rate 500 --record calls.csv
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its terminal")]

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use evenkeel_channel::{
    BuildError, Channel, WaitForReady,
    balance::{ConfigError, HealthCheck, ProgressSettings, UnknownService},
};
use evenkeel_channelz::Channelz;
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::{
    Code, Request, Status,
    transport::{Server, server::TcpIncoming},
};

/// Starts calls at a fixed rate, and records what became of each.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// The service, as the channel takes it: `host:port,host:port…`, `dns:///name:port` and so on.
    #[arg(long)]
    target: String,
    /// Calls started a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to start calls.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Deadline of each call, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    deadline_ms: u64,
    /// Time that the backend takes for each call, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u32,
    /// How calls are placed, in place of what the service config says.
    #[arg(long)]
    policy: Option<String>,
    /// A gRPC service config, JSON.
    #[arg(long, default_value = "{}")]
    service_config: String,
    /// Watch the health of this service on every backend.
    #[arg(long)]
    health_service: Option<String>,
    /// Close a connection that has been silent for so long, in milliseconds, in place of the channel's default.
    #[arg(long)]
    give_up_ms: Option<u64>,
    /// Let every other call, those with an odd number, wait for an endpoint that is ready.
    #[arg(long)]
    odd_wait_for_ready: bool,
    /// Serve channelz on this port of loopback while the load runs; 0 takes any free one, and `channelz on ADDRESS` says
    /// which.
    #[arg(long)]
    channelz_port: Option<u16>,
    /// File for the CSV lines.
    #[arg(long)]
    record: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("--service-config: {0}")]
    Config(#[from] ConfigError),
    #[error("cannot build the channel: {0}")]
    Channel(#[from] BuildError),
    #[error("cannot reach {target}: {status}")]
    Unreachable { target: String, status: Status },
    #[error("cannot serve channelz: {0}")]
    Channelz(io::Error),
    #[error("cannot write {}: {error}", path.display())]
    Record { path: PathBuf, error: io::Error },
}

#[tokio::main]
async fn main() -> ExitCode {
    match load(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("evenkeel-interop-load: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn load(args: Args) -> Result<(), Failure> {
    let channel = channel(&args)?;
    let caller = Caller { client: EchoClient::new(channel.clone()), args };
    caller.warm_up().await?;
    println!("started");
    if let Some(port) = caller.args.channelz_port {
        println!("channelz on {}", serve_channelz(port, &channel).await.map_err(Failure::Channelz)?);
    }
    let outcomes = caller.run().await;
    let path = &caller.args.record;
    write(path, &outcomes).map_err(|error| Failure::Record { path: path.clone(), error })
}

fn channel(args: &Args) -> Result<Channel, Failure> {
    let mut builder = Channel::builder(&args.target).service_config(&args.service_config)?;
    if let Some(policy) = &args.policy {
        builder = builder.policy(policy);
    }
    if let Some(service) = args.health_service.clone() {
        builder = builder.health_check(HealthCheck { service, unknown: UnknownService::IsUnhealthy });
    }
    if let Some(millis) = args.give_up_ms {
        let mut progress = ProgressSettings::default();
        progress.give_up_after = Duration::from_millis(millis);
        builder = builder.progress(progress);
    }
    Ok(builder.build()?)
}

/// Tells of `channel` until the load ends, and says where.
async fn serve_channelz(port: u16, channel: &Channel) -> io::Result<SocketAddr> {
    let channelz = Channelz::new();
    channelz.add("load", channel);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    let server = Server::builder().add_service(channelz.service());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}

#[derive(Clone)]
struct Caller {
    client: EchoClient<Channel>,
    args: Args,
}

/// What became of a call.
struct Outcome {
    number: u32,
    start: SystemTime,
    latency: Duration,
    /// Who answered, or how the call failed.
    answer: Result<String, Status>,
}

impl Caller {
    /// Waits until a call has been answered.
    async fn warm_up(&self) -> Result<(), Failure> {
        let mut request = self.request(EchoRequest::default());
        request.extensions_mut().insert(WaitForReady(true));
        match self.client.clone().unary(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(Failure::Unreachable { target: self.args.target.clone(), status }),
        }
    }

    async fn run(&self) -> Vec<Outcome> {
        let mut starts = interval(Duration::from_secs(1) / self.args.rate);
        starts.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut running = JoinSet::new();
        for number in 0..self.args.rate * self.args.seconds {
            starts.tick().await;
            running.spawn(self.clone().call(number));
        }
        let mut outcomes = running.join_all().await;
        outcomes.sort_unstable_by_key(|outcome| outcome.number);
        outcomes
    }

    async fn call(mut self, number: u32) -> Outcome {
        let mut request = self.request(EchoRequest {
            message: number.to_string(),
            delay_ms: self.args.delay_ms,
            ..EchoRequest::default()
        });
        if self.args.odd_wait_for_ready && number % 2 == 1 {
            request.extensions_mut().insert(WaitForReady(true));
        }
        let (start, began) = (SystemTime::now(), Instant::now());
        let answer = self.client.unary(request).await.map(|reply| reply.into_inner().backend);
        Outcome { number, start, latency: began.elapsed(), answer }
    }

    fn request(&self, message: EchoRequest) -> Request<EchoRequest> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_millis(self.args.deadline_ms));
        request
    }
}

fn write(path: &Path, outcomes: &[Outcome]) -> io::Result<()> {
    let mut lines = BufWriter::new(File::create(path)?);
    for outcome in outcomes {
        let start = outcome.start.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?.as_nanos();
        let (code, backend, message) = match &outcome.answer {
            Ok(backend) => ("OK".to_owned(), backend.as_str(), ""),
            Err(status) => (code_name(status.code()), "", status.message()),
        };
        let (number, latency, message) = (outcome.number, outcome.latency.as_micros(), message.replace('"', "'"));
        writeln!(lines, "{number},{start},{latency},{code},{backend},\"{message}\"")?;
    }
    lines.flush()
}

/// As grpc-go names it.
fn code_name(code: Code) -> String {
    match code {
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}
