//! The `evenkeel` command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its terminal")]

mod check;
mod demo;
mod logging;
mod proxy;
mod signals;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Proxy(proxy::Args),
    Check(check::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    DemoBackend(demo::BackendArgs),
}

fn main() -> ExitCode {
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
