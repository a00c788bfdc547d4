use std::{io, io::Write, net::Ipv4Addr, pin::Pin, process::ExitCode, time::Duration};

use evenkeel_health::{Reporter, ServingStatus};
use evenkeel_proto::demo::{
    EchoReply, EchoRequest,
    echo_server::{Echo, EchoServer},
};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
};
use tonic::{
    Request, Response, Status, Streaming,
    codegen::tokio_stream::Stream,
    transport::{Server, server::TcpIncoming},
};

use super::with_causes;

/// What the parent tells a backend over its standard input, one a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Serving,
    NotServing,
}

impl Order {
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotServing => "not-serving",
        }
    }

    fn parse(line: &str) -> Option<Self> {
        [Self::Serving, Self::NotServing].into_iter().find(|order| order.line() == line)
    }
}

/// One backend of the demo
#[derive(Debug, clap::Args)]
pub(crate) struct BackendArgs {
    /// What it calls itself in its replies
    #[arg(long)]
    pub(super) name: String,
    /// The port to listen on, 0 for a free one; it is printed on standard output once calls are taken
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,
    /// Serve until a signal ends it, rather than until standard input does
    #[arg(long)]
    pub(super) stay: bool,
}

/// Serves until standard input ends: however the parent dies, the backend goes with it. A stopped process reads no
/// input; Linux kills that one.
pub(crate) async fn serve_backend(args: BackendArgs) -> ExitCode {
    let name = args.name.clone();
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel demo: backend {name}: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: BackendArgs) -> Result<(), BackendError> {
    if !args.stay {
        die_with_parent()?;
    }
    let bind = |source| BackendError::Bind { port: args.port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.map_err(bind)?;
    let port = listener.local_addr().map_err(bind)?.port();
    writeln!(io::stdout(), "{port}").map_err(BackendError::Parent)?;

    let (reporter, health) = evenkeel_health::service();
    let echo = EchoServer::new(NamedEcho { name: args.name });
    let server = Server::builder().add_service(health).add_service(echo);
    tokio::select! {
        ended = server.serve_with_incoming(TcpIncoming::from(listener)) => ended?,
        ended = obey(&reporter), if !args.stay => ended.map_err(BackendError::Parent)?,
    }
    Ok(())
}

/// The parent starts its backends from its main thread, whose end is the parent's.
#[cfg(target_os = "linux")]
fn die_with_parent() -> Result<(), BackendError> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| BackendError::Parent(errno.into()))
}

/// Elsewhere a stopped process is resumed and hung up on once its group, which is its own, is orphaned.
#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> Result<(), BackendError> {
    Ok(())
}

async fn obey(reporter: &Reporter) -> io::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let order = Order::parse(&line).ok_or_else(|| io::Error::other(format!("no such order: {line:?}")))?;
        let status = match order {
            Order::Serving => ServingStatus::Serving,
            Order::NotServing => ServingStatus::NotServing,
        };
        reporter.set("", status);
    }
    Ok(())
}

/// Why a backend could not serve.
#[derive(Debug, Error)]
enum BackendError {
    #[error("cannot listen on port {port} of 127.0.0.1")]
    Bind { port: u16, source: io::Error },
    #[error("cannot talk to the process that started this backend")]
    Parent(#[source] io::Error),
    #[error("cannot serve")]
    Serve(#[from] tonic::transport::Error),
}

struct NamedEcho {
    name: String,
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

/// The demo makes unary calls alone; the other methods are for servers of tests and benchmarks.
#[tonic::async_trait]
impl Echo for NamedEcho {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let EchoRequest { message, payload, delay_ms, .. } = request.into_inner();
        tokio::time::sleep(Duration::from_millis(delay_ms.into())).await;
        Ok(Response::new(EchoReply { message, payload, backend: self.name.clone() }))
    }

    async fn client_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        Err(only_unary())
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        Err(only_unary())
    }

    type BidiStreamStream = Replies;

    async fn bidi_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        Err(only_unary())
    }
}

fn only_unary() -> Status {
    Status::unimplemented("the demo's backends serve Unary alone")
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn an_order_is_read_as_it_is_written() {
        for order in [Order::Serving, Order::NotServing] {
            assert_eq!(Order::parse(order.line()), Some(order));
        }
        assert_eq!(Order::parse("SERVING"), None);
    }
}
