//! The time until a changed list of endpoints is in force, and what a pick costs meanwhile.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use evenkeel_balance::{Balancer, Entropy, Input, LbConfig, PickArgs, Picker, Policies, Time};

use crate::{
    core,
    figures::median,
    picks::{listed, settle},
};

const ENDPOINTS: usize = 10_000;
/// How many of them are replaced by new ones in each update: 1 %.
const CHURN: usize = ENDPOINTS / 100;
const UPDATES: usize = 30;
const POLICIES: [&str; 3] = ["round_robin", "random", "least_request"];

/// Prints a Markdown table.
pub(crate) fn measure() -> anyhow::Result<()> {
    println!(
        "{ENDPOINTS} endpoints, of which {CHURN} are replaced in each of {UPDATES} updates\n\n\
         | policy | ms an update, median | slowest | picks meanwhile: median ns | slowest µs |\n|---|---|---|---|---|"
    );
    for policy in POLICIES {
        let (updates, picks) = churn(policy)?;
        let slowest = |times: &[Duration]| times.iter().max().map_or(0.0, Duration::as_secs_f64);
        let middle = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64).collect());
        println!(
            "| {policy} | {:.1} | {:.1} | {:.0} | {:.1} |",
            middle(&updates) * 1e3,
            slowest(&updates) * 1e3,
            middle(&picks) * 1e9,
            slowest(&picks) * 1e6,
        );
    }
    Ok(())
}

/// The times of updates, and of the picks that another thread made at the same time.
fn churn(policy: &str) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let mut balancer = Balancer::new(Policies::standard(), &LbConfig::of(policy), Default::default(), 1)?;
    balancer.handle(Time::ZERO, Input::Resolved(listed(0..ENDPOINTS)?));
    let published = RwLock::new(settle(&mut balancer).context("no picker")?);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let picking = scope.spawn(|| {
            core::pin(core::CLIENT)?;
            keep_picking(&published, &over)
        });
        core::pin(core::BACKENDS)?;
        let updates = (1..=UPDATES).map(|turn| update(&mut balancer, &published, turn)).collect::<Result<_, _>>();
        over.store(true, Relaxed);
        let picks = picking.join().map_err(|_| anyhow!("the picking thread panicked"))?;
        Ok((updates?, picks?))
    })
}

/// One update, from the resolver's answer to the picker: the time includes the connecting of new endpoints, which here
/// takes none.
fn update(balancer: &mut Balancer, published: &RwLock<Arc<dyn Picker>>, turn: usize) -> anyhow::Result<Duration> {
    let endpoints = listed(turn * CHURN..turn * CHURN + ENDPOINTS)?;
    let started = Instant::now();
    balancer.handle(Time::ZERO, Input::Resolved(endpoints));
    let picker = settle(balancer).context("no picker")?;
    let elapsed = started.elapsed();
    *published.write().map_err(|_| anyhow!("poisoned"))? = picker;
    Ok(elapsed)
}

fn keep_picking(published: &RwLock<Arc<dyn Picker>>, over: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    let mut entropy = Entropy::new(1);
    let mut times = Vec::new();
    while !over.load(Relaxed) {
        let picker = Arc::clone(&*published.read().map_err(|_| anyhow!("poisoned"))?);
        for _ in 0..100 {
            let args = PickArgs::new(Time::ZERO, entropy.next_u64(), "/evenkeel.demo.v1.Echo/Unary");
            let started = Instant::now();
            drop(picker.pick(&args));
            times.push(started.elapsed());
        }
    }
    Ok(times)
}
