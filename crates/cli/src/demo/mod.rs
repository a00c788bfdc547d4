//! `evenkeel demo`: what a newcomer runs first.
//!
//! Three real backends, each a process; a proxy in front of them and a channel beside it; a steady load, half through
//! each. Then the backends suffer what production does to them, one after the other, and the demo measures what became
//! of the calls.

mod backend;
mod faces;
mod fleet;
mod latency;
mod load;
mod narrate;
mod record;
mod rotation;
mod script;
mod summary;
mod view;
mod watch;

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    iter,
    process::ExitCode,
    time::Duration,
};

use evenkeel_config::parse_duration;
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep_until,
};

pub(crate) use backend::{BackendArgs, serve_backend};

use self::{
    faces::{FaceError, Faces},
    fleet::{Fleet, FleetError},
    load::Load,
    narrate::Narrator,
    record::{Face, Plan, Record, Run},
    script::{BACKENDS, script},
    summary::Summary,
    view::View,
};
use crate::proxy::policy_names;

/// Break three real backends in turn under load, and show what becomes of the calls
///
/// The backends are processes of this program. One is killed and started again, one reports NOT_SERVING for a while,
/// one is stopped and resumed. Half of the calls go through a proxy, half through a channel in the client.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
pub(crate) struct Args {
    /// How long calls are made, such as 20s or 2m; at least 5s
    #[arg(long, default_value = "20s", value_parser = duration)]
    duration: Duration,
    /// Calls a second, half of them through the proxy and half through the channel
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rps: u32,
    /// How calls are placed
    #[arg(long, default_value = "least_request", value_parser = policy_names())]
    policy: String,
    /// Makes the moments and the work of the calls, and the policy's choices, repeatable
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Print the summary as JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether logs can be written without spoiling the live view.
    pub(crate) fn may_log(&self) -> bool {
        !self.has_view() || !io::stderr().is_terminal()
    }

    fn has_view(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    fn narrator(&self) -> Narrator {
        match (self.json, self.has_view()) {
            (true, _) => Narrator::Stderr,
            (false, true) => Narrator::Silent,
            (false, false) => Narrator::Stdout,
        }
    }

    fn plan(&self) -> Plan {
        Plan { duration: self.duration, rps: self.rps, policy: self.policy.clone(), seed: self.seed }
    }
}

/// Runs the demo: exit code 0 if every call was answered, 1 if not, and 128 + the signal's number if one ended it.
pub(crate) async fn run(args: Args) -> ExitCode {
    until_signalled(&args).await.unwrap_or_else(|error| {
        eprintln!("evenkeel demo: {}", with_causes(&error));
        ExitCode::FAILURE
    })
}

async fn until_signalled(args: &Args) -> Result<ExitCode, DemoError> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(DemoError::Signals)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(DemoError::Signals)?;
    let (quit, mut quits) = mpsc::channel(1);
    // Whichever comes first, what `perform` holds is dropped: the backends are killed, the terminal is restored.
    tokio::select! {
        _ = interrupts.recv() => Ok(ExitCode::from(130)),
        Some(()) = quits.recv() => Ok(ExitCode::from(130)),
        _ = terminations.recv() => Ok(ExitCode::from(143)),
        outcome = perform(args, quit) => outcome,
    }
}

/// The whole show, from the first backend's start to the summary.
async fn perform(args: &Args, quit: mpsc::Sender<()>) -> Result<ExitCode, DemoError> {
    let plan = args.plan();
    let mut fleet = Fleet::start().await?;
    let (mut faces, proxy) = Faces::open(&plan, &fleet.addresses())?;
    let serving = proxy.serve(std::future::pending());
    let acting = async {
        faces.warm_up().await?;
        let run = Run::start(Record::new(plan.clone(), script(plan.duration), fleet.addresses(), fleet.pids()));
        let view = if args.has_view() { Some(View::start(run.clone(), quit)?) } else { None };
        act(&run, &faces, &mut fleet, args.narrator()).await?;
        drop(view);
        Ok(run)
    };
    let run = tokio::select! {
        acted = acting => acted,
        _ = serving => Err(DemoError::ProxyEnded),
    }?;
    fleet.end().await?;
    print(args, &Summary::of(&run.record()))
}

/// Makes the calls through both faces, plays the script, and writes down what both channels say of it.
async fn act(run: &Run, faces: &Faces, fleet: &mut Fleet, narrator: Narrator) -> Result<(), DemoError> {
    introduce(run, narrator);
    let Plan { rps, seed, .. } = run.record().plan;
    let load = |face, seed| Load { face, rate: f64::from(rps) / 2.0, seed };
    let through_proxy = load(Face::Proxy, seed).drive(run, |request| {
        let mut client = faces.proxied.clone();
        async move { client.unary(request).await }
    });
    let through_channel = load(Face::Channel, !seed).drive(run, |request| {
        let mut client = faces.channel.clone();
        async move { client.unary(request).await }
    });
    let follow = |face| watch::follow(face, faces.reports(face), run.clone(), narrator);
    let following = async { tokio::join!(follow(Face::Proxy), follow(Face::Channel)) };
    let calling = async {
        tokio::join!(through_proxy, through_channel);
        Ok(())
    };
    let showing = async { tokio::try_join!(calling, play(run, fleet, narrator)) };
    tokio::select! {
        shown = showing => shown.map(drop),
        _ = following => Err(DemoError::ReportsEnded),
    }
}

fn introduce(run: &Run, narrator: Narrator) {
    let record = run.record();
    let Plan { duration, rps, policy, .. } = &record.plan;
    narrator.say(Duration::ZERO, &format!("{policy}, {rps} calls/s for {} s", duration.as_secs_f64()));
    for (backend, name) in BACKENDS.into_iter().enumerate() {
        let (address, pid) = (record.addresses[backend], record.pids[backend]);
        narrator.say(Duration::ZERO, &format!("backend {name} is process {pid} at {address}"));
    }
}

/// Does to the backends what the script says, when it says so.
async fn play(run: &Run, fleet: &mut Fleet, narrator: Narrator) -> Result<(), DemoError> {
    let acts = run.record().acts;
    for (i, act) in acts.into_iter().enumerate() {
        let (fault, repair) = act.fault.words();
        let name = BACKENDS[act.backend];

        sleep_until(run.instant(act.fault_at)).await;
        let at = run.now();
        run.record().performed[i].fault = Some(at);
        narrator.say(at, &format!("{name}: {fault}"));
        fleet.inflict(act.fault, act.backend).await?;

        sleep_until(run.instant(act.repair_at)).await;
        let at = run.now();
        run.record().performed[i].repair = Some(at);
        narrator.say(at, &format!("{name}: {repair}"));
        fleet.repair(act.fault, act.backend).await?;
        run.record().note_processes(fleet.pids());
    }
    Ok(())
}

fn print(args: &Args, summary: &Summary) -> Result<ExitCode, DemoError> {
    let text = if args.json {
        serde_json::to_string_pretty(summary).map_err(io::Error::from).map_err(DemoError::Output)? + "\n"
    } else {
        format!("\n{summary}")
    };
    io::stdout().write_all(text.as_bytes()).map_err(DemoError::Output)?;
    Ok(if summary.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why there is no demo to see.
#[derive(Debug, Error)]
enum DemoError {
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Face(#[from] FaceError),
    #[error("the proxy ended before the demo did")]
    ProxyEnded,
    #[error("a channel ended before the demo did")]
    ReportsEnded,
    #[error("cannot draw on the terminal; pipe the output through `cat` to do without")]
    Terminal(#[source] io::Error),
    #[error("cannot print the summary")]
    Output(#[source] io::Error),
}

/// An error with its causes, as a person reads it: `what: why: why`.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    let allowed = Duration::from_secs(5)..=Duration::from_secs(3_600);
    if !allowed.contains(&duration) {
        return Err("must be from 5s to 1h: each backend needs time to heal".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_bounds() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert!(duration("4s").is_err_and(|error| error.contains("5s")));
        assert!(duration("61m").is_err());
        assert!(duration("20 parsecs").is_err());
    }
}
