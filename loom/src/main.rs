//! Evenkeel's own concurrency, in every order in which its operations can happen and become visible.
//!
//! The sources of the product are compiled here with loom's primitives in place of std's and tokio's: they take them from
//! `crate::sync`. What cannot be compiled so, because it belongs to a library that knows nothing of loom, is modelled,
//! and says that it is.
//!
//! `cargo run --release` runs all models; a failure is a panic that tells the order of events.

#![allow(dead_code, unused_imports, reason = "a model uses a part of each source")]

mod counters;
mod publish;
mod streams;
mod sync;

// What the sources take from the crate that they are at home in.
use evenkeel_balance::{Code, Entropy, HedgingPolicy, Pushback, RetryPolicy, RetryThrottling, Time};
use hedging::HedgeBudget;
use load::Load;
use retry::RetryThrottle;

#[path = "../../crates/balance/src/hedging.rs"]
mod hedging;
#[path = "../../crates/balance/src/load.rs"]
mod load;
#[path = "../../crates/transport/src/queue.rs"]
mod queue;
#[path = "../../crates/balance/src/retry.rs"]
mod retry;

/// What a model shows, and the model.
type Model = (&'static str, fn());

fn main() {
    let models: [Model; 10] = [
        ("Load: calls that end on two threads leave nothing in flight", counters::loads_return_to_zero),
        ("Load: a suspicion changes no count, and its last word holds", counters::suspicion_is_independent),
        ("RetryThrottle: no token is lost, none is spent twice", counters::throttle_loses_no_token),
        ("HedgeBudget: one saved hedge is spent once", counters::one_hedge_is_spent_once),
        ("HedgeBudget: what is earned at the same time is all there", counters::no_earning_is_lost),
        ("StreamQueue: a stream that ends as a call gets in line is not missed", streams::an_end_is_not_missed),
        ("StreamQueue: a turn that is given up goes to the next", streams::a_turn_given_up_is_passed_on),
        ("StreamQueue: whoever waits hears of the connection's end", streams::the_connections_end_is_not_missed),
        ("publish (a model of ArcSwap and watch): a newer snapshot is not missed", publish::newer_is_not_missed),
        ("publish (a model of ArcSwap and watch): whoever was told finds it", publish::told_is_found),
    ];
    for (shows, model) in models {
        loom::model(model);
        println!("ok    {shows}");
    }
}
