//! The server's process, and the other side of its pipes.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use evenkeel_health::{Limits, ServingStatus};
use evenkeel_server::Listener;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::{clients, now};

/// Serves, and obeys a word a line.
pub(crate) async fn run(tonic: bool) -> Result<()> {
    let limits = Limits { max_watchers: 20_000, max_watchers_per_connection: 20_000 };
    let (reporter, health) = evenkeel_health::service_with(limits);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    if tonic {
        let server = tonic::transport::Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    } else {
        let server = evenkeel_server::Server::new(Listener::from(listener), Routes::new(health));
        tokio::spawn(server.max_concurrent_streams(20_000).serve());
    }
    tokio::task::spawn_blocking(move || obey(&reporter)).await?
}

fn obey(reporter: &evenkeel_health::Reporter) -> Result<()> {
    let mut status = ServingStatus::Serving;
    for line in stdin().lines() {
        if line? == "change" {
            status = if status == ServingStatus::Serving { ServingStatus::NotServing } else { ServingStatus::Serving };
            let since = now();
            reporter.set("", status);
            println!("{}", since.as_nanos());
        } else {
            println!("{}", memory()?);
        }
        stdout().flush()?;
    }
    Ok(())
}

fn memory() -> Result<String> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("the kernel tells it")?;
        Ok(line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<f64>()? / 1024.0)
    };
    let times = std::fs::read_to_string("/proc/self/stat")?;
    let ticks = |at: usize| times.split(' ').nth(at).and_then(|ticks| ticks.parse::<u32>().ok());
    let busy = ticks(13).zip(ticks(14)).map(|(user, system)| f64::from(user + system) / 100.0);
    let busy = busy.context("the kernel tells it")?;
    Ok(format!("resident {:.1} MiB, at most {:.1} MiB; {busy:.2} s on processors", field("VmRSS")?, field("VmHWM")?))
}

/// The server as the clients' process sees it; it ends with it.
pub(crate) struct Server {
    process: Child,
    words: ChildStdin,
    replies: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(tonic: bool) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--server").args(tonic.then_some("--tonic"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let words = process.stdin.take().context("piped")?;
        let mut replies = BufReader::new(process.stdout.take().context("piped")?);
        let address = line(&mut replies)?.parse()?;
        Ok(Self { process, words, replies, address })
    }

    /// Changes the status; returns when it did.
    pub(crate) fn change(&mut self) -> Result<Duration> {
        Ok(Duration::from_nanos(self.ask("change")?.parse()?))
    }

    pub(crate) fn memory(&mut self) -> Result<String> {
        self.ask("memory")
    }

    /// One more client is served.
    pub(crate) async fn check(&self, address: SocketAddr) -> Result<()> {
        clients::Clients::connect(address, 1, 1, 0).await.map(drop)
    }

    fn ask(&mut self, word: &str) -> Result<String> {
        writeln!(self.words, "{word}")?;
        line(&mut self.replies)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill() {
            eprintln!("the server's process {} may still be there: {error}", self.process.id());
        }
    }
}

fn line(replies: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    replies.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
