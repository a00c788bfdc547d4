//! Thousands of checks by one thread: what they cost, how late they start, and how soon they find what has stopped.

mod backends;
mod figures;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use evenkeel_checker::{
    Checker, Probe,
    balance::{CheckSettings, CheckVerdict},
};

use backends::{Order, Servers};
use figures::{Figures, Usage};

/// Checks thousands of backends by one thread, and measures what that takes
#[derive(Parser)]
struct Options {
    /// How many backends
    #[arg(long, default_value_t = 10_000)]
    backends: u32,
    /// From one probe of a backend to the next, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    interval: u64,
    /// How each is asked
    #[arg(long, value_enum, default_value_t = Kind::Grpc)]
    kind: Kind,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many are killed, and how many are stopped so that they hang
    #[arg(long, default_value_t = 50)]
    victims: u32,
    /// The servers that are checked: what the measurement starts
    #[arg(long, hide = true, value_names = ["FIRST", "COUNT"], num_args = 2)]
    serve: Option<Vec<u32>>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Grpc,
    Watch,
    Http2,
    Tcp,
}

impl Kind {
    fn probe(self) -> Probe {
        match self {
            Self::Grpc => Probe::grpc(""),
            Self::Watch => Probe::watch(""),
            Self::Http2 => Probe::http2("/"),
            Self::Tcp => Probe::tcp(),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some([first, count]) = options.serve.as_deref() {
        return backends::serve(*first..first + count).await;
    }
    let figures = Figures::install()?;
    let mut servers = Servers::start(options.backends).await?;
    let checkers = start(&options)?;
    let began = Instant::now();
    until(&checkers, CheckVerdict::Healthy).await;
    println!("all {} are healthy after {:.1} s", checkers.len(), began.elapsed().as_secs_f64());
    steady(&options, &figures).await?;
    // The first are killed, the next are stopped.
    let (killed, hung) = (options.victims as usize, 2 * options.victims as usize);
    outage(&mut servers, Order::Kill(0..options.victims), &checkers[..killed]).await?;
    outage(&mut servers, Order::Hang(options.victims..2 * options.victims), &checkers[killed..hung]).await?;
    let wrong = checkers[hung..].iter().filter(|checker| checker.history().iter().len() != 1).count();
    println!("of the others, {wrong} were ever taken to be ill");
    Ok(())
}

fn start(options: &Options) -> Result<Vec<Checker>> {
    let mut settings = CheckSettings::every(Duration::from_millis(options.interval));
    settings.spread = settings.interval;
    let one = |number| {
        let address: SocketAddr = backends::address(number);
        Ok(Checker::start(options.kind.probe().at(address)?, settings)?)
    };
    (0..options.backends).map(one).collect()
}

/// Waits until each has this verdict.
async fn until(checkers: &[Checker], verdict: CheckVerdict) {
    for checker in checkers {
        let mut transitions = checker.transitions();
        while checker.verdict() != verdict {
            transitions.next().await;
        }
    }
}

/// What it costs while nothing happens.
async fn steady(options: &Options, figures: &Figures) -> Result<()> {
    figures.clear();
    let before = Usage::now()?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let used = Usage::now()?.since(&before);
    println!("{used}");
    println!("{}", figures.report(used.wall));
    Ok(())
}

/// Stops some, and tells when each was found out.
async fn outage(servers: &mut Servers, order: Order, victims: &[Checker]) -> Result<()> {
    let mut watched: Vec<_> = victims.iter().map(Checker::transitions).collect();
    let words = order.to_string();
    let began = Instant::now();
    servers.order(&order).await?;
    let mut times = Vec::new();
    for (checker, transitions) in victims.iter().zip(&mut watched) {
        let out = loop {
            let change = transitions.next().await.context("the checker has ended")?;
            if change.to == CheckVerdict::Unhealthy {
                break checker.clock().instant(change.at).into_std();
            }
        };
        times.push(out.saturating_duration_since(began));
    }
    times.sort_unstable();
    let last = times.last().context("no victims")?;
    println!("{words}: half are out after {:.2?}, all after {last:.2?}", times[times.len() / 2]);
    Ok(())
}
