//! The servers that are checked: processes of their own, each with thousands of addresses of the loopback network.

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    pin::pin,
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinSet,
};

/// Backends of one process: each takes a descriptor to listen and one for its connection.
const EACH: u32 = 5_000;

/// Where every backend listens, on an address of its own.
const PORT: u16 = 39_001;

/// The address of a backend: one of 127.0.0.0/8.
pub(crate) fn address(number: u32) -> SocketAddr {
    let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 16, 0, 1)) + number);
    SocketAddr::new(host.into(), PORT)
}

/// What happens to some backends.
pub(crate) enum Order {
    /// They end, with their sockets.
    Kill(Range<u32>),
    /// They keep their sockets and do nothing more.
    Hang(Range<u32>),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(of) => write!(f, "kill {} {}", of.start, of.end),
            Self::Hang(of) => write!(f, "hang {} {}", of.start, of.end),
        }
    }
}

/// The processes.
pub(crate) struct Servers(Vec<(Child, ChildStdin)>);

impl Servers {
    pub(crate) async fn start(count: u32) -> Result<Self> {
        let mut servers = Vec::new();
        for first in (0..count).step_by(EACH as usize) {
            let numbers = [first.to_string(), EACH.min(count - first).to_string()];
            let mut child = Command::new(std::env::current_exe()?)
                .arg("--serve")
                .args(numbers)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let orders = child.stdin.take().context("it was piped")?;
            let mut words = BufReader::new(child.stdout.take().context("it was piped")?).lines();
            words.next_line().await?.context("the server has ended before it listened")?;
            servers.push((child, orders));
        }
        Ok(Self(servers))
    }

    /// Tells every process; each does what concerns it.
    pub(crate) async fn order(&mut self, order: &Order) -> Result<()> {
        for (_, orders) in &mut self.0 {
            orders.write_all(format!("{order}\n").as_bytes()).await?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Well,
    Hung,
}

/// Serves these backends until there are no more orders.
pub(crate) async fn serve(numbers: Range<u32>) -> Result<()> {
    let mut backends = BTreeMap::new();
    let mut tasks = JoinSet::new();
    for number in numbers {
        let listener = TcpListener::bind(address(number)).await.with_context(|| address(number).to_string())?;
        let (state, seen) = watch::channel(State::Well);
        let task = tasks.spawn(backend(listener, seen));
        backends.insert(number, (state, task));
    }
    announce();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let words: Vec<_> = order.split(' ').collect();
        let [what, first, end] = words[..] else { bail!("{order:?} is no order") };
        for (_, (state, task)) in backends.range(first.parse::<u32>()?..end.parse()?) {
            match what {
                "kill" => task.abort(),
                _ => drop(state.send_replace(State::Hung)),
            }
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "whoever has started it reads there")]
fn announce() {
    println!("listening");
}

/// One backend. Its connections end with it.
async fn backend(listener: TcpListener, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers every request, be it a Check, a Watch or a GET, with SERVING, and all but a Watch with OK.
async fn connection(stream: TcpStream, mut state: watch::Receiver<State>) {
    let serving = async {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        let mut open = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let Ok(mut stream) = respond.send_response(head, false) else { continue };
            let _ = stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false);
            if request.uri().path().ends_with("/Watch") {
                open.push((request, stream));
                continue;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
        }
    };
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        // What serves is kept, with its socket.
        () = hung(&mut state) => pending::<()>().await,
        () = &mut serving => {}
    }
}

async fn hung(state: &mut watch::Receiver<State>) {
    let _ = state.wait_for(|state| *state == State::Hung).await;
}
