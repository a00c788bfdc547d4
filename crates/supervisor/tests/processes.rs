//! Real processes. Whoever waits for children waits for all of them, so that each case has a supervisor of its own: this
//! program started again with [`CASE`] and the case's name. It is the launcher as well.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{process::ExitCode, process::Stdio, time::Duration};

use evenkeel_supervisor::process::{Command, Exit, Processes, launcher};

/// The first argument by which the program is one case's supervisor.
const CASE: &str = "--case";
/// How long a case may take; far more than any needs.
const PATIENCE: Duration = Duration::from_secs(60);

type Case = (&'static str, fn(Processes) -> futures::Case);

/// Boxed, so that cases of different types stand in one list.
mod futures {
    pub(crate) type Case = std::pin::Pin<Box<dyn Future<Output = ()>>>;
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const CASES: &[Case] = &[$((stringify!($name), |processes| Box::pin($name(processes)))),*];
    };
}

cases![an_exit_code_is_told, a_signal_is_told,];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == launcher::ARGUMENT => launcher::run(args),
        Some(first) if first == CASE => run_case(&args.next().unwrap_or_default().to_string_lossy()),
        filter => run_all(filter.map(|filter| filter.to_string_lossy().into_owned())),
    }
}

fn run_case(name: &str) -> ExitCode {
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).expect("a case of this name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let processes = Processes::new().expect("the first in this process");
        tokio::time::timeout(PATIENCE, case(processes)).await.expect("the case ends in time");
    });
    ExitCode::SUCCESS
}

/// Each in a process of its own, whose output is shown if it fails.
fn run_all(filter: Option<String>) -> ExitCode {
    let filter = filter.filter(|filter| !filter.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, _) in CASES.iter().filter(|(name, _)| name.contains(&filter)) {
        let mut command = std::process::Command::new("/proc/self/exe");
        let output = command.args([CASE, name]).stdin(Stdio::null()).output().expect("we can be started");
        if output.status.success() {
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED: {}", output.status);
            println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sh(script: &str) -> Command {
    Command { args: vec!["-c".to_owned(), script.to_owned()], ..Command::new("case/0", "sh") }
}

async fn an_exit_code_is_told(processes: Processes) {
    let child = processes.start(&sh("exit 3")).await.unwrap();
    assert_eq!(child.exited().await, Exit::Code(3));
    assert_eq!(child.exit(), Some(Exit::Code(3)), "again");
}

async fn a_signal_is_told(processes: Processes) {
    let child = processes.start(&sh("kill -9 $$")).await.unwrap();
    let exit = child.exited().await;
    assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
}
