//! Real processes. Whoever waits for children waits for all of them, so that each case has a supervisor of its own: this
//! program started again with [`CASE`] and the case's name. It is the launcher as well.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_imports, reason = "a test")]

mod notify;
mod output;
mod start;
mod stop;

use std::{pin::Pin, process::ExitCode, process::Stdio, sync::Arc, sync::Mutex, time::Duration};

use evenkeel_supervisor::process::{
    Child, Command, Exit, Format, Limit, Notify, Output, Processes, ProcessesError, Resource, Signal, Stopped, launcher,
};

/// The first argument by which the program is one case's supervisor.
const CASE: &str = "--case";
/// The first argument by which the program says its second one to its supervisor.
const TELL: &str = "--tell";
/// How long a case may take; far more than any needs.
const PATIENCE: Duration = Duration::from_secs(60);

struct Case {
    name: &'static str,
    run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! cases {
    ($($module:ident: $($name:ident),*;)*) => {
        &[$($(Case { name: stringify!($name), run: || Box::pin($module::$name()) }),*),*]
    };
}

const CASES: &[Case] = cases![
    start:
        an_exit_code_is_told,
        a_signal_is_told,
        children_that_end_at_once_are_all_told,
        what_cannot_be_started_is_said_precisely,
        a_user_and_a_directory_are_taken_on,
        limits_and_environment_reach_the_program,
        a_start_that_is_given_up_leaves_nothing,
        one_at_a_time_waits_for_children,
        what_a_program_uses_is_seen;
    stop:
        a_stop_lets_the_orderly_end_in_order,
        a_stop_kills_what_ignores_it,
        a_stopped_process_hears_a_stop,
        grandchildren_end_with_the_group,
        what_left_the_group_is_found_and_ended,
        what_a_crash_leaves_behind_is_found_and_ended,
        strays_that_hid_are_ended_at_the_end,
        a_fork_race_is_won,
        orphans_are_reaped,
        a_signal_can_be_for_the_program_alone,
        children_die_with_their_supervisor,
        as_process_one_orphans_are_reaped;
    output:
        output_is_forwarded_with_prefixes,
        output_without_an_end_is_cut,
        a_reader_that_is_stuck_holds_up_no_exit,
        a_flood_does_not_silence_others;
    notify:
        a_program_tells_us_how_it_is,
        a_program_of_another_user_can_tell_us,
        a_watchdog_finds_a_hang;
];

/// Started by other cases.
const INNER_CASES: &[Case] = cases![stop: starts_and_waits;];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == launcher::ARGUMENT => launcher::run(args),
        Some(first) if first == CASE => run_case(&args.next().unwrap_or_default().to_string_lossy()),
        Some(first) if first == TELL => tell(&args.next().unwrap_or_default().to_string_lossy()),
        filter => run_all(filter.map(|filter| filter.to_string_lossy().into_owned())),
    }
}

fn run_case(name: &str) -> ExitCode {
    let case = CASES.iter().chain(INNER_CASES).find(|case| case.name == name).expect("a case of this name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, (case.run)()).await.expect("the case ends in time") });
    ExitCode::SUCCESS
}

/// Each in a process of its own, whose output is shown if it fails.
fn run_all(filter: Option<String>) -> ExitCode {
    let filter = filter.filter(|filter| !filter.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for Case { name, .. } in CASES.iter().filter(|case| case.name.contains(&filter)) {
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

/// Children's output goes to ours.
fn forwarding() -> Processes {
    Processes::new(Output::new(Format::Text)).unwrap()
}

/// A shell that runs this.
fn sh(script: &str) -> Command {
    Command { args: vec!["-c".to_owned(), script.to_owned()], ..Command::new("case/0", "sh") }
}

/// Waits until the child has written this line.
async fn written(child: &Child, line: &str) {
    until(|| child.last_lines().iter().any(|written| written.line == line)).await;
}

/// Waits until something holds.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The process's state letter and parent; none if there is none.
fn state(pid: i32) -> Option<(String, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|(state, _)| state != "Z")
}

/// Those whose parent we are, dead ones included.
fn our_children() -> Vec<i32> {
    let us = i32::try_from(std::process::id()).unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| state(*pid).is_some_and(|(_, parent)| parent == us)).collect()
}

/// The numbers that a child has written, one a line after this word.
fn pids(child: &Child, word: &str) -> Vec<i32> {
    let lines = child.last_lines();
    lines.iter().filter_map(|line| line.line.strip_prefix(word)?.trim().parse().ok()).collect()
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn ourselves() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

fn tell(message: &str) -> ExitCode {
    let socket = std::env::var_os("NOTIFY_SOCKET").expect("we are told where");
    let sent = std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(message.as_bytes(), socket);
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
