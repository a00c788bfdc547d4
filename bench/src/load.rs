//! One client in a process of its own: callers that each make one call after the other, and what that costs.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    core,
    figures::Counted,
    peers::{self, Peer, PeerName},
};

/// What one client does.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) peer: PeerName,
    #[arg(long)]
    pub(crate) runtime: Runtime,
    #[arg(long)]
    pub(crate) in_flight: usize,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// `host:port`s of the backends
    #[arg(long, value_delimiter = ',')]
    pub(crate) backends: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    CurrentThread,
    MultiThread,
}

/// What a client saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// User and system time a call, µs.
    pub(crate) cpu: f64,
    /// A call's time, µs.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Allocations a call and their bytes; 0 in a program that does not count.
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// Runs the client and prints its [`Figures`] as JSON.
pub(crate) fn run(options: &Options, counted: Option<Counted>) -> anyhow::Result<()> {
    core::pin(core::CLIENT)?;
    let mut runtime = match options.runtime {
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Runtime::MultiThread => tokio::runtime::Builder::new_multi_thread(),
    };
    let options = options.clone();
    let figures = runtime.enable_all().build()?.block_on(async move {
        // Off the main task, which a multi-thread runtime does not run on its workers.
        tokio::spawn(async move { peers::measure(&options, counted).await }).await?
    })?;
    serde_json::to_writer(io::stdout(), &figures)?;
    Ok(())
}

const WARM_UP: Duration = Duration::from_millis(300);

const WARMING: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

struct Measurement {
    phase: AtomicU8,
    seen: Mutex<Seen>,
}

struct Seen {
    /// In nanoseconds.
    latencies: Histogram<u32>,
    failed: u64,
}

/// Puts `peer` under load, and counts what happens between two moments of it.
pub(crate) async fn drive<P: Peer>(peer: P, options: &Options, counted: Option<Counted>) -> anyhow::Result<Figures> {
    peer.call().await.context("the first call failed")?;
    let latencies = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
    let seen = Mutex::new(Seen { latencies, failed: 0 });
    let measurement = Arc::new(Measurement { phase: AtomicU8::new(WARMING), seen });
    let callers: Vec<_> =
        (0..options.in_flight).map(|_| tokio::spawn(keep_calling(peer.clone(), Arc::clone(&measurement)))).collect();

    tokio::time::sleep(WARM_UP).await;
    measurement.phase.store(MEASURED, Relaxed);
    let (cpu, memory) = (core::cpu_time(), counted.map(|stats| stats()));
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let (cpu, memory) = (core::cpu_time() - cpu, counted.zip(memory).map(|(stats, before)| stats() - before));
    measurement.phase.store(OVER, Relaxed);

    for caller in callers {
        caller.await??;
    }
    let seen = measurement.seen.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(!seen.latencies.is_empty(), "no call was completed");
    Ok(figures(&seen, cpu, memory))
}

async fn keep_calling<P: Peer>(peer: P, measurement: Arc<Measurement>) -> anyhow::Result<()> {
    while measurement.phase.load(Relaxed) != OVER {
        let started = Instant::now();
        let result = peer.call().await;
        if measurement.phase.load(Relaxed) == MEASURED {
            let mut seen = measurement.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.latencies.record(u64::try_from(started.elapsed().as_nanos())?)?;
            seen.failed += u64::from(result.is_err());
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "figures for a table")]
fn figures(seen: &Seen, cpu: Duration, memory: Option<stats_alloc::Stats>) -> Figures {
    let calls = seen.latencies.len();
    let a_call = |total: f64| total / calls as f64;
    let latency = |quantile| seen.latencies.value_at_quantile(quantile) as f64 / 1e3;
    let allocations = memory.map_or(0, |memory| memory.allocations + memory.reallocations);
    Figures {
        calls,
        failed: seen.failed,
        cpu: a_call(cpu.as_secs_f64() * 1e6),
        p50: latency(0.5),
        p99: latency(0.99),
        allocations: a_call(allocations as f64),
        bytes: a_call(memory.map_or(0, |memory| memory.bytes_allocated) as f64),
    }
}
