//! Compares the peers: each client in a process of its own, one after the other, round after round.

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::{
    figures::median,
    load::{Figures, Runtime},
    peers::PeerName,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Which clients
    #[arg(long, value_delimiter = ',', default_value = "evenkeel,evenkeel-watched,tonic,tonic-balance,grpc,h2,engine")]
    peers: Vec<PeerName>,
    /// On which of tokio's runtimes
    #[arg(long, value_delimiter = ',', default_value = "current-thread,multi-thread")]
    runtimes: Vec<Runtime>,
    /// How many calls are under way at a time
    #[arg(long, value_delimiter = ',', default_value = "1,64,512")]
    in_flight: Vec<usize>,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For how long each is measured
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Measures, and prints a Markdown table.
pub(crate) fn compare(options: &Options) -> anyhow::Result<()> {
    let backends = Backends::start()?;
    println!(
        "| runtime | in flight | client | CPU µs a call | × tonic | p50 µs | p99 µs | allocations | bytes |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for &runtime in &options.runtimes {
        for &in_flight in &options.in_flight {
            let setting = Setting { runtime, in_flight, seconds: options.seconds, backends: &backends };
            print(&setting, &setting.measure(options)?);
        }
    }
    Ok(())
}

/// What is the same for all clients of a comparison.
struct Setting<'a> {
    runtime: Runtime,
    in_flight: usize,
    seconds: f64,
    backends: &'a Backends,
}

impl Setting<'_> {
    /// The peers take turns, so that whatever else the machine does meets all of them alike.
    fn measure(&self, options: &Options) -> anyhow::Result<Vec<(PeerName, Figures)>> {
        let mut peers = options.peers.clone();
        peers.retain(|peer| self.in_flight <= peer.most_in_flight() && peer.runs_on(self.runtime));
        let mut rounds: Vec<Vec<Figures>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (&peer, seen) in peers.iter().zip(&mut rounds) {
                seen.push(self.client(peer, "evenkeel-bench")?);
            }
        }
        peers
            .into_iter()
            .zip(rounds)
            .map(|(peer, seen)| {
                let counted = self.client(peer, "evenkeel-bench-counting")?;
                Ok((peer, Figures { allocations: counted.allocations, bytes: counted.bytes, ..medians(&seen) }))
            })
            .collect()
    }

    fn client(&self, peer: PeerName, program: &str) -> anyhow::Result<Figures> {
        let output = Command::new(sibling(program)?)
            .arg("client")
            .args(["--peer", &name(peer), "--runtime", &name(self.runtime)])
            .args(["--in-flight", &self.in_flight.to_string(), "--seconds", &self.seconds.to_string()])
            .args(["--backends", &self.backends.addresses])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{peer:?} failed with {}", output.status);
        let figures: Figures = serde_json::from_slice(&output.stdout)?;
        ensure!(figures.failed == 0, "{peer:?}: {} of {} calls failed", figures.failed, figures.calls);
        Ok(figures)
    }
}

fn medians(seen: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(seen.iter().map(figure).collect());
    Figures { cpu: of(|f| f.cpu), p50: of(|f| f.p50), p99: of(|f| f.p99), ..seen[0] }
}

fn print(setting: &Setting<'_>, table: &[(PeerName, Figures)]) {
    let tonic = table.iter().find(|(peer, _)| *peer == PeerName::Tonic).map(|(_, figures)| figures.cpu);
    for (peer, figures) in table {
        let ratio = tonic.map_or_else(|| "–".to_owned(), |tonic| format!("{:.2}", figures.cpu / tonic));
        let Figures { cpu, p50, p99, allocations, bytes, .. } = figures;
        let (runtime, in_flight, peer) = (name(setting.runtime), setting.in_flight, name(*peer));
        println!(
            "| {runtime} | {in_flight} | {peer} | {cpu:.1} | {ratio} | {p50:.0} | {p99:.0} | {allocations:.1} | {bytes:.0} |"
        );
    }
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn sibling(program: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(program);
    ensure!(path.exists(), "{} is missing: build both programs (cargo build --release)", path.display());
    Ok(path)
}

/// The servers' process, which ends when its standard input does.
struct Backends {
    process: Child,
    addresses: String,
}

impl Backends {
    fn start() -> anyhow::Result<Self> {
        let mut process =
            Command::new(env::current_exe()?).arg("backends").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().context("no standard output")?;
        let ports = BufReader::new(output).lines().take(3).collect::<Result<Vec<_>, _>>()?;
        ensure!(ports.len() == 3, "the backends did not start");
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(Self { process, addresses: addresses.join(",") })
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It has nothing to clean up, and its exit says nothing.
        let _ = self.process.wait();
    }
}
