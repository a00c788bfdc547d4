//! The time of one pick, for each policy and several numbers of endpoints.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use evenkeel_balance::{
    Action, Balancer, Call, Connectivity, Endpoint, Entropy, Input, LbConfig, Outcome, Pick, PickArgs, Picker,
    Policies, Time,
};

use crate::{core, figures::median};

/// Picks that are timed together; their calls end in between, untimed.
const BATCH: usize = 64;
/// How long each thread picks: long enough for two to meet.
const PERIOD: Duration = Duration::from_millis(100);
const ROUNDS: usize = 5;

/// Prints a Markdown table of nanoseconds a pick.
pub(crate) fn measure() -> anyhow::Result<()> {
    println!("| policy | endpoints | ns a pick, one thread | two threads |\n|---|---|---|---|");
    for policy in Policies::standard().names() {
        for endpoints in [3, 1_000, 10_000] {
            let Some(picker) = ready_picker(policy, endpoints)? else { continue };
            let time = |threads| (0..ROUNDS).map(|_| time(&picker, threads)).collect::<Result<_, _>>().map(median);
            println!("| {policy} | {endpoints} | {:.1} | {:.1} |", time(1)?, time(2)?);
        }
    }
    Ok(())
}

/// The picker of a policy whose endpoints are all connected; `None` where the policy needs a config of its own.
fn ready_picker(policy: &str, endpoints: usize) -> anyhow::Result<Option<Arc<dyn Picker>>> {
    let config = LbConfig::of(policy);
    let Ok(mut balancer) = Balancer::new(Policies::standard(), &config, Default::default(), 1) else {
        return Ok(None);
    };
    balancer.handle(Time::ZERO, Input::Resolved(listed(0..endpoints)?));
    balancer.handle(Time::ZERO, Input::ExitIdle);
    let Some(picker) = settle(&mut balancer) else { return Ok(None) };
    let first = picker.pick(&args(&mut Entropy::new(1)));
    Ok(matches!(first, Pick::Call(_)).then_some(picker))
}

/// An endpoint for each number.
pub(crate) fn listed(numbers: impl IntoIterator<Item = usize>) -> anyhow::Result<Arc<[Endpoint]>> {
    let addressed = numbers.into_iter().map(|number| {
        let bits = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + u32::try_from(number)?;
        Ok(Endpoint::new(SocketAddr::from((Ipv4Addr::from(bits), 50_051))))
    });
    addressed.collect()
}

/// Does what the balancer wants, connecting at once. Returns the last picker of a channel that is READY.
pub(crate) fn settle(balancer: &mut Balancer) -> Option<Arc<dyn Picker>> {
    let mut picker = None;
    while let Some(action) = balancer.poll_action(Time::ZERO) {
        match action {
            Action::Connect { connection, .. } => balancer.handle(Time::ZERO, Input::Connected(connection)),
            Action::Publish(update) if update.connectivity == Connectivity::Ready => picker = Some(update.picker),
            _ => {}
        }
    }
    picker
}

fn args(entropy: &mut Entropy) -> PickArgs<'static> {
    PickArgs::new(Time::ZERO, entropy.next_u64(), "/evenkeel.demo.v1.Echo/Unary")
}

/// Nanoseconds a pick where `threads` pick at the same time: those of the slower one.
fn time(picker: &Arc<dyn Picker>, threads: usize) -> anyhow::Result<f64> {
    let start = Barrier::new(threads);
    let times = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    // One thread alone takes the core that the other programs of the machine like less.
                    core::pin((thread + 1) % 2)?;
                    start.wait();
                    pick(&**picker, thread)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    let times: anyhow::Result<Vec<f64>> = times;
    Ok(times?.into_iter().fold(0.0, f64::max))
}

#[allow(clippy::cast_precision_loss, reason = "figures for a table")]
fn pick(picker: &dyn Picker, thread: usize) -> anyhow::Result<f64> {
    let mut entropy = Entropy::new(u64::try_from(thread)?);
    let outcome = Outcome::new(evenkeel_balance::Code::Ok);
    let mut calls: Vec<Call> = Vec::with_capacity(BATCH);
    let mut batches = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < PERIOD {
        let started = Instant::now();
        for _ in 0..BATCH {
            if let Pick::Call(call) = black_box(picker).pick(black_box(&args(&mut entropy).on_lane(thread))) {
                calls.push(call);
            }
        }
        batches.push(started.elapsed().as_nanos() as f64 / BATCH as f64);
        for call in calls.drain(..) {
            call.finish(&outcome);
        }
    }
    Ok(median(batches))
}
