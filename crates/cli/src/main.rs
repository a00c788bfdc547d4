//! The `evenkeel` command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its terminal")]

mod check;
mod demo;
mod logging;
mod orders;
mod proxy;
mod signals;
mod status;
mod supervise;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use evenkeel_supervisor::process::launcher;

/// Keeps gRPC services available and steady.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, propagate_version = true)]
struct Evenkeel {
    #[command(flatten)]
    logging: logging::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
enum Command {
    Supervise(supervise::Args),
    Status(status::Args),
    Restart(orders::RestartArgs),
    Stop(orders::StopArgs),
    Start(orders::StartArgs),
    Switch(orders::SwitchArgs),
    Proxy(proxy::Args),
    Check(check::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    DemoBackend(demo::BackendArgs),
}

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // First of all: a process that is being started for a service is not ours to read the arguments of.
    if arguments.get(1).is_some_and(|first| first == launcher::ARGUMENT) {
        return launcher::run(arguments.into_iter().skip(2));
    }
    if check::stand_in::is_meant(arguments.first()) {
        return check::stand_in::run(arguments.drain(1..));
    }
    let Evenkeel { logging, command } = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    if let Command::Check(args) = command {
        // A probe starts anew every few seconds, and is to cost little: it logs only if asked to.
        let _logs = logging.start_if_asked();
        return check::run(&args);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("evenkeel: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(command, &logging))
}

/// `check` takes flags with one dash, too.
fn parse(arguments: Vec<OsString>) -> Result<Evenkeel, clap::Error> {
    let mut command = Evenkeel::command();
    command.build();
    let check = command.find_subcommand("check").expect("it is one of the commands");
    Evenkeel::try_parse_from(check::flags::normalized(arguments, "check", check))
}

async fn run(command: Command, logging: &logging::Args) -> ExitCode {
    match command {
        Command::Proxy(args) => {
            let _logs = logging.start("info");
            proxy::run(args).await
        }
        Command::Supervise(args) => {
            let _logs = logging.start("info");
            supervise::run(args, logging.is_json()).await
        }
        Command::Status(args) => status::run(args).await,
        Command::Restart(args) => orders::restart(args).await,
        Command::Stop(args) => orders::stop(args).await,
        Command::Start(args) => orders::start(args).await,
        Command::Switch(args) => orders::switch(args).await,
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => {
            let _logs = args.may_log().then(|| logging.start("off"));
            demo::run(args).await
        }
        Command::DemoBackend(args) => demo::serve_backend(args).await,
    }
}

/// Writes to standard output. That its reader has gone, as `head` does, changes neither what was done nor its exit code.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints what is wrong with the arguments, or the help that was asked for. A usage error is 1, as a health probe's
/// callers expect.
fn usage(error: &clap::Error) -> ExitCode {
    // Fails only where the terminal is gone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
