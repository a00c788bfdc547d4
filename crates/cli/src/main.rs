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

use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
enum Command {
    Supervise(supervise::Args),
    Status(status::Args),
    Restart(orders::RestartArgs),
    Stop(orders::StopArgs),
    Start(orders::StartArgs),
    Proxy(proxy::Args),
    Check(check::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    DemoBackend(demo::BackendArgs),
}

fn main() -> ExitCode {
    // First of all: a process that is being started for a service is not ours to read the arguments of.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == launcher::ARGUMENT) {
        return launcher::run(arguments);
    }
    let Evenkeel { logging, command } = match Evenkeel::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("evenkeel: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match command {
            Command::Supervise(args) => {
                logging.start("info");
                supervise::run(args, logging.is_json()).await
            }
            Command::Status(args) => status::run(args).await,
            Command::Restart(args) => orders::restart(args).await,
            Command::Stop(args) => orders::stop(args).await,
            Command::Start(args) => orders::start(args).await,
            Command::Proxy(args) => {
                logging.start("info");
                proxy::run(args).await
            }
            Command::Check(args) => {
                logging.start("off");
                check::run(args).await
            }
            Command::Demo(args) => {
                if args.may_log() {
                    logging.start("off");
                }
                demo::run(args).await
            }
            Command::DemoBackend(args) => demo::serve_backend(args).await,
        }
    })
}

/// Prints what is wrong with the arguments, or the help that was asked for. A usage error is 1, as a health probe's
/// callers expect.
fn usage(error: &clap::Error) -> ExitCode {
    // Fails only where the terminal is gone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
