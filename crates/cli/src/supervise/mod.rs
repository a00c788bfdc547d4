//! `evenkeel supervise`: services, and proxies in front of them, from one file.

mod answers;
mod front;
mod proxies;
mod session;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use evenkeel_config::File;
use evenkeel_supervisor::{
    control::{Control, default_path},
    process::{Format, Output, Processes, Systemd},
};

use self::session::Session;
pub(crate) use self::{answers::Answers, proxies::Proxies};
use crate::signals;

/// How long what services have written last may take to be written on.
const FLUSHING_TAKES: Duration = Duration::from_secs(2);

/// Run services as a file says, keep them running, and balance calls over them
///
/// Services are started in the order of their dependencies, checked, restarted when they end, fail or hang, and stopped
/// in order. SIGHUP reads the file again and restarts what has changed, one replica at a time, or everything if nothing
/// has. SIGTERM and SIGINT stop everything in order, and a second one kills at once.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
pub(crate) struct Args {
    /// What to run: a TOML file with [service.NAME] and [proxy.NAME]
    file: PathBuf,
    /// Say whether the file is valid, and do nothing else
    #[arg(long)]
    check: bool,
    /// Where `evenkeel status` and the like find this supervisor [default: as the file says, or
    /// $XDG_RUNTIME_DIR/evenkeel/NAME.sock, or /run/evenkeel/NAME.sock]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, has_json_logs: bool) -> ExitCode {
    supervise(args, has_json_logs).await.unwrap_or_else(|error| {
        for line in error.lines() {
            eprintln!("evenkeel supervise: {line}");
        }
        ExitCode::FAILURE
    })
}

async fn supervise(args: Args, has_json_logs: bool) -> Result<ExitCode, String> {
    let file = File::read(&args.file).map_err(|error| error.to_string())?;
    if args.check {
        let (services, proxies) = (file.services.len(), file.proxies.len());
        crate::say(&format!("{} is valid: {services} services, {proxies} proxies\n", args.file.display()));
        return Ok(ExitCode::SUCCESS);
    }
    // Before anybody can know that we run, so that no signal is missed.
    let signals = signals::all().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let systemd = Systemd::from_environment().map_err(|error| format!("cannot tell systemd: {error}"))?;
    let output = Output::new(if has_json_logs { Format::Json } else { Format::for_terminal() });
    let processes = Processes::new(output.clone()).map_err(|error| error.to_string())?;
    let handle = evenkeel_supervisor::start(processes.clone(), rand::random());
    let socket = args.control.or_else(|| file.control.clone()).unwrap_or_else(|| default_path(&args.file));
    let proxies = Proxies::bind(&file, Some(&handle))?;
    let answers = Answers::new(Some(handle.clone()), proxies.fronts());
    let control = Control::serve(&socket, answers).await.map_err(|error| error.to_string())?;
    handle.configure(file.services.clone());

    let session = Session { path: args.file, file, handle, systemd, signals, proxies };
    let code = session.run().await;
    drop(control);
    match processes.kill_strays().await {
        Ok(strays) if strays.is_empty() => {}
        Ok(strays) => {
            let strays: Vec<_> = strays.iter().map(ToString::to_string).collect();
            let strays = strays.join(", ");
            tracing::warn!(target: "evenkeel::supervisor", "killed what services have left behind: {strays}");
        }
        Err(error) => tracing::error!(target: "evenkeel::supervisor", %error, "cannot tell whether anything is left"),
    }
    // Who reads our output may have stopped reading.
    let _ = tokio::time::timeout(FLUSHING_TAKES, output.flush()).await;
    Ok(code)
}
