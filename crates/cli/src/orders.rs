use std::{path::PathBuf, process::ExitCode, time::Duration};

use evenkeel_supervisor::control::{Reply, Request, ask, only_path};

/// How often it is asked how far a restart is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which supervisor.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
pub(crate) struct Control {
    /// The supervisor's control socket [default: the only one in $XDG_RUNTIME_DIR/evenkeel or /run/evenkeel]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Control {
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, String> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => only_path().map_err(|error| error.to_string())?,
        };
        ask(&path, request).await.map_err(|error| error.to_string())
    }
}

/// What to do it to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A service, or one replica of it as NAME/NUMBER
    name: String,
    #[command(flatten)]
    control: Control,
}

/// Restart a service one replica at a time, each once the one before serves, and wait for the end of it
#[derive(Debug, clap::Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    order: Args,
    /// Do not wait
    #[arg(long)]
    no_wait: bool,
}

/// Stop a service in order, until it is started
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    order: Args,
}

/// Start what does not run of a service, at once
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    order: Args,
}

/// Send all calls of a proxy to one group of its endpoints, or leave it to what is well again
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
pub(crate) struct SwitchArgs {
    /// The NAME of a [proxy.NAME]
    proxy: String,
    /// A group's number: 0 is the target or the primaries, 1 the first standby, and so on; or auto
    #[arg(value_parser = parse_group)]
    group: Group,
    #[command(flatten)]
    control: Control,
}

/// Where an operator sends calls; none for wherever it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group(Option<u32>);

pub(crate) async fn restart(args: RestartArgs) -> ExitCode {
    let RestartArgs { order, no_wait } = args;
    let followed = follow(&order, Request::Restart { name: order.name.clone() }).await;
    match followed {
        Ok(()) if !no_wait => tell(wait_for_restart(&order).await),
        followed => tell(followed),
    }
}

pub(crate) async fn stop(StopArgs { order }: StopArgs) -> ExitCode {
    tell(follow(&order, Request::Stop { name: order.name.clone() }).await)
}

pub(crate) async fn start(StartArgs { order }: StartArgs) -> ExitCode {
    tell(follow(&order, Request::Start { name: order.name.clone() }).await)
}

pub(crate) async fn switch(SwitchArgs { proxy, group, control }: SwitchArgs) -> ExitCode {
    let args = Args { name: proxy, control };
    tell(follow(&args, Request::Switch { name: args.name.clone(), group: group.0 }).await)
}

fn parse_group(text: &str) -> Result<Group, String> {
    if text == "auto" {
        return Ok(Group(None));
    }
    text.parse().map(|rank| Group(Some(rank))).map_err(|_| "it is neither a number nor auto".to_owned())
}

async fn follow(args: &Args, request: Request) -> Result<(), String> {
    match args.control.ask(&request).await? {
        Reply::Done { text } => {
            crate::say(&format!("{}: {text}\n", args.name));
            Ok(())
        }
        Reply::Refused { why } => Err(why),
        Reply::Status { .. } => Err("the supervisor answered something else than was asked".to_owned()),
    }
}

async fn wait_for_restart(args: &Args) -> Result<(), String> {
    let service = args.name.split('/').next().unwrap_or_default();
    loop {
        let Reply::Status { services, .. } = args.control.ask(&Request::Status).await? else {
            return Err("the supervisor answered something else than was asked".to_owned());
        };
        let Some(status) = services.into_iter().find(|each| each.name == service) else {
            return Err(format!("`{service}` has been removed meanwhile"));
        };
        if status.rolling.is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        if let Some(why) = status.last_roll {
            return Err(why);
        }
        crate::say(&format!("{}: restarted, {} of {} serve\n", args.name, status.serving, status.wanted));
        return Ok(());
    }
}

fn tell(followed: Result<(), String>) -> ExitCode {
    match followed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel: {error}");
            ExitCode::FAILURE
        }
    }
}
