//! `--watch`: prints each change until interrupted, across lost connections.

use std::{io, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Named,
    failure::{Cause, Failure},
    probe::{Answer, Changes, Health, Plan},
    report::Report,
    server::Server,
};
use crate::signals;

/// Pauses between attempts to connect: short at first, since most servers are back soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Where a server has no Watch, it is asked so often; where it has, beside it: a Watch is silent by nature, also when the
/// server hangs.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches every target until SIGINT or SIGTERM.
pub(super) async fn run(plan: &Plan, targets: Vec<Named>, report: Report) -> Vec<u8> {
    let interrupted = match signals::terminated() {
        Ok(interrupted) => interrupted,
        Err(error) => return vec![no_signals(&error)],
    };
    let mut watching = JoinSet::new();
    let mut codes = Vec::new();
    for named in targets {
        let (told, code) = watch::channel(2);
        codes.push(code);
        watching.spawn(Watcher { plan: plan.clone(), named, report, last: None, told }.run());
    }
    tokio::select! {
        () = interrupted => {}
        // Not before the process ends: watchers never do.
        _ = watching.join_all() => {}
    }
    codes.iter().map(|code| *code.borrow()).collect()
}

fn no_signals(error: &io::Error) -> u8 {
    eprintln!("evenkeel check: cannot listen for signals: {error}");
    2
}

/// Watches one target.
struct Watcher {
    plan: Plan,
    named: Named,
    report: Report,
    /// What was printed last: only changes are printed.
    last: Option<Result<Health, Failure>>,
    /// The exit code of what was printed last.
    told: watch::Sender<u8>,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let failure = self.follow().await;
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            self.tell(Err(failure), None);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, and prints changes until that ends, and why.
    async fn follow(&mut self) -> Failure {
        let server = match self.plan.way.connect(&self.named.target).await {
            Ok(server) => server,
            Err(failure) => return failure,
        };
        match self.plan.watch(&server).await {
            Ok((first, changes)) => self.changes(&server, first, changes).await,
            Err(failure) if failure.cause == Cause::Unimplemented => self.poll(&server).await,
            Err(failure) => failure,
        }
    }

    async fn changes(&mut self, server: &Server, first: Health, mut changes: Changes) -> Failure {
        self.tell(Ok(first), Some(server));
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                failure = hang(&self.plan, server) => return failure,
            };
            match change {
                Ok(health) => self.tell(Ok(health), Some(server)),
                Err(status) => return self.plan.failed(&status),
            }
        }
    }

    async fn poll(&mut self, server: &Server) -> Failure {
        self.report.aside(&self.named.text, "the server has no Watch: it is asked every second");
        loop {
            match self.plan.check(server).await {
                Ok(health) => self.tell(Ok(health), Some(server)),
                Err(failure) => return failure,
            }
            sleep(INTERVAL).await;
        }
    }

    fn tell(&mut self, outcome: Result<Health, Failure>, server: Option<&Server>) {
        if self.last.as_ref() == Some(&outcome) {
            return;
        }
        self.last = Some(outcome.clone());
        let outcome =
            outcome.map_err(|failure| Failure { message: format!("{}; connecting again", failure.message), ..failure });
        let facts = server.map(|server| server.facts.clone());
        let answer = Answer { outcome, facts, connecting: None, calling: None };
        self.told.send_replace(answer.exit_code());
        self.report.answer(&self.named.text, &self.plan.service, &answer, true);
    }
}

/// Asks beside a Watch, until there is no answer.
async fn hang(plan: &Plan, server: &Server) -> Failure {
    loop {
        sleep(INTERVAL).await;
        match plan.call_check(server).await {
            Err(failure) if failure.cause == Cause::Deadline => return failure,
            // What fails otherwise is an answer, or the end of the connection, of which the Watch tells.
            _ => {}
        }
    }
}
