//! Load: an open loop, in which each call has its time however late the others are, or a closed one.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU64,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::{
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
    task::spawn_local,
    time::timeout,
};

use crate::call::{Answer, Caller, Connection, Shape};

/// A call that takes longer counts as failed.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The longest latency that is told apart from longer ones, in microseconds: calls that are due may have to wait, too.
const LONGEST: u64 = 600_000_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to call
    server: SocketAddr,
    #[command(flatten)]
    shape: Shape,
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// Calls at a time on each connection, where no rate is given
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Calls a second, whether or not earlier ones have ended; latency then counts from when a call was due
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let caller = Caller::new(options.server, options.shape);
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(caller.connect().await?);
    }
    let span = Duration::from_secs_f64(options.seconds);
    let load = Rc::new(Load {
        caller,
        connections,
        record: RefCell::new(Record::new()?),
        running: Cell::new(0),
        idle: Notify::new(),
    });
    let began = Instant::now();
    match options.rate {
        Some(rate) => open(&load, pace(rate, span)).await,
        None => closed(&load, options.streams, began + span).await,
    }
    println!("{}", load.record.borrow().json(began.elapsed()));
    Ok(())
}

/// Makes each call at its time.
async fn open(load: &Rc<Load>, mut due: UnboundedReceiver<Instant>) {
    let mut number = 0;
    while let Some(due) = due.recv().await {
        let turn = number % load.connections.len();
        number += 1;
        load.running.set(load.running.get() + 1);
        let load = load.clone();
        spawn_local(async move {
            load.call(turn, due).await;
            load.running.set(load.running.get() - 1);
            load.idle.notify_one();
        });
    }
    while load.running.get() > 0 {
        load.idle.notified().await;
    }
}

/// Tells when calls are due. A thread, since the runtime's timers tick only once a millisecond.
fn pace(rate: f64, span: Duration) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        // Sleeps are to end as soon as they can: the kernel's usual slack is as long as a call takes. If it says no, calls
        // are a little late, and their latency shows it.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let start = Instant::now();
        for number in 0_u32.. {
            let due = Duration::from_secs_f64(f64::from(number) / rate);
            if due >= span {
                break;
            }
            thread::sleep(due.saturating_sub(start.elapsed()));
            if sender.send(start + due).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Makes the next call when one has ended.
async fn closed(load: &Rc<Load>, streams: usize, end: Instant) {
    let callers: Vec<_> = (0..load.connections.len() * streams)
        .map(|number| {
            let load = load.clone();
            spawn_local(async move {
                while Instant::now() < end {
                    load.call(number % load.connections.len(), Instant::now()).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("callers do not panic");
    }
}

struct Load {
    caller: Caller,
    connections: Vec<Connection>,
    record: RefCell<Record>,
    /// Calls of the open loop that have not ended.
    running: Cell<usize>,
    idle: Notify,
}

impl Load {
    async fn call(&self, connection: usize, due: Instant) {
        let call = timeout(CALL_LIMIT, self.caller.call(&self.connections[connection])).await;
        let result = call.unwrap_or_else(|_| Err(format!("no reply within {} s", CALL_LIMIT.as_secs())));
        self.record.borrow_mut().add(result, due.elapsed());
    }
}

/// What came of the calls.
struct Record {
    /// Of calls that succeeded, in microseconds.
    latency: Histogram<u64>,
    bytes: u64,
    failed: BTreeMap<String, u64>,
    backends: BTreeMap<String, u64>,
}

impl Record {
    fn new() -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3).context("the bounds are valid")?;
        Ok(Self { latency, bytes: 0, failed: BTreeMap::new(), backends: BTreeMap::new() })
    }

    fn add(&mut self, result: Result<Answer, String>, latency: Duration) {
        match result {
            Ok(answer) => {
                self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
                self.bytes += answer.bytes;
                *self.backends.entry(answer.backend.to_string()).or_default() += 1;
            }
            Err(why) => *self.failed.entry(why).or_default() += 1,
        }
    }

    fn json(&self, took: Duration) -> serde_json::Value {
        json!({
            "seconds": took.as_secs_f64(),
            "ok": self.latency.len(),
            "failed": self.failed,
            "bytes": self.bytes,
            "backends": self.backends,
            "p50": self.latency.value_at_quantile(0.5),
            "p99": self.latency.value_at_quantile(0.99),
            "p999": self.latency.value_at_quantile(0.999),
            "max": self.latency.max(),
        })
    }
}
