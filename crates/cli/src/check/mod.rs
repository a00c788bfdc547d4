//! `evenkeel check`: asks servers for their health.
//!
//! `options` has the flags that grpc-health-probe has too, and `stand_in` speaks as that program does; both lead to a
//! `Plan` (`probe`), which connects (`server`, with `credentials` and a `diagnosis` of what goes wrong), calls (`rpc`) and
//! has an answer for `report`. `watch` and `wait` ask again.

mod certificate;
mod clock;
mod credentials;
mod diagnosis;
mod failure;
pub(crate) mod flags;
mod go;
mod options;
mod overheard;
mod plan;
mod probe;
mod report;
mod rpc;
mod server;
pub(crate) mod stand_in;
mod wait;
mod watch;

use std::{process::ExitCode, sync::Arc, time::Duration};

use evenkeel_naming::Target;
use evenkeel_transport::ConnectProxy;
use tokio::time::Instant;

use failure::{Cause, Failure};
use go::GoDuration;
use options::Options;
use probe::{Answer, Plan, Services};
use report::{Form, Report};

/// Ask servers for their health, print the answers, and exit by them
///
/// It takes the flags of grpc-health-probe too, with one dash or two, and under the name grpc_health_probe it prints what
/// that prints.
///
/// Exit codes: 0 SERVING, 1 wrong arguments, 2 no connection, 3 the call failed, 4 any other status, 20 no SPIFFE
/// credentials. Of several targets the worst decides: 1, then 20, 2, 3, 4.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "they are flags")]
#[allow(clippy::doc_markdown, reason = "help texts are for terminals")]
#[command(verbatim_doc_comment, args_override_self = true)]
pub(crate) struct Args {
    /// The servers: host:port, :port, unix:PATH, unix-abstract:NAME, dns:///host:port, or any other target
    #[arg(value_name = "TARGET", required_unless_present = "addr")]
    targets: Vec<String>,
    /// Stay, and print each change with its time, until interrupted; exit by the last status
    #[arg(long, conflicts_with_all = ["wait", "list"])]
    watch: bool,
    /// List every service of the servers, and exit by the worst
    #[arg(long, conflicts_with_all = ["wait", "service"])]
    list: bool,
    /// Ask again until every server is SERVING, for so many seconds (or 1m30s) at most
    #[arg(long, value_name = "SECONDS", value_parser = parse_wait)]
    wait: Option<Duration>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Print nothing: the exit code says it
    #[arg(long, short, alias = "q", conflicts_with = "verbose")]
    quiet: bool,
    /// The HTTP proxy to go through, as http://user:password@host:port; without it, what HTTPS_PROXY and NO_PROXY say
    #[arg(long, value_name = "URL", conflicts_with = "no_proxy", value_parser = parse_proxy)]
    proxy: Option<ConnectProxy>,
    /// Go through no proxy
    #[arg(long)]
    no_proxy: bool,
    #[command(flatten)]
    options: Options,
}

/// A century: as good as for ever, and can be added to a clock.
const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn parse_wait(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wait = seconds.or_else(|| text.parse::<GoDuration>().ok()?.positive());
    wait.map(|wait| wait.min(LONGEST_WAIT))
        .ok_or_else(|| "it must be a number of seconds, or a duration such as 1m30s".to_owned())
}

fn parse_proxy(text: &str) -> Result<ConnectProxy, String> {
    ConnectProxy::new(text).map_err(|error| error.to_string())
}

/// A target, and how the user wrote it.
#[derive(Clone, Debug)]
struct Named {
    text: String,
    target: Target,
}

/// Asks as the arguments say. It has a runtime of one thread: a probe is over before threads have started.
pub(crate) fn run(args: &Args) -> ExitCode {
    let prepared = args.prepare();
    let (plan, targets) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            eprintln!("evenkeel check: {failure}");
            return ExitCode::from(failure.cause.exit_code());
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("evenkeel check: cannot start the runtime: {error}");
            return ExitCode::from(2);
        }
    };
    let codes = runtime.block_on(ask(args, Arc::new(plan), targets));
    // A look-up of a name may still be on its way, and nobody waits for it.
    runtime.shutdown_background();
    ExitCode::from(worst(codes))
}

async fn ask(args: &Args, plan: Arc<Plan>, targets: Vec<Named>) -> Vec<u8> {
    let report = args.report(targets.len() > 1);
    let tell = |target: &str, answer: &Answer| {
        report.answer(target, &args.options.service, answer, false);
        answer.exit_code()
    };
    if args.watch {
        return watch::run(&plan, targets, report).await;
    }
    if args.list {
        let list = |named: Named| {
            let plan = Arc::clone(&plan);
            async move { plan.ask_for_all(&named.target).await }
        };
        return for_each(targets, list, |target, answer: &Answer<Services>| {
            report.services(target, answer);
            answer.exit_code()
        })
        .await;
    }
    let until = args.wait.map(|patience| Instant::now() + patience);
    let check = |named: Named| {
        let plan = Arc::clone(&plan);
        async move {
            match until {
                Some(until) => wait::until_serving(&plan, &named, report, until).await,
                None => plan.ask(&named.target).await,
            }
        }
    };
    for_each(targets, check, tell).await
}

impl Args {
    fn prepare(&self) -> Result<(Plan, Vec<Named>), Failure> {
        let proxy = match &self.proxy {
            Some(proxy) => proxy.clone(),
            None if self.no_proxy => ConnectProxy::none(),
            None => ConnectProxy::from_env(),
        };
        let named = |text: &String| Ok(Named { text: text.clone(), target: plan::target(text)? });
        let given = self.options.addr.iter().filter(|addr| !addr.is_empty());
        let targets: Vec<_> = given.chain(&self.targets).map(named).collect::<Result<_, Failure>>()?;
        if targets.is_empty() {
            return Err(Failure::new(Cause::Arguments, "-addr not specified"));
        }
        Ok((plan::of(&self.options, proxy)?, targets))
    }

    fn report(&self, several: bool) -> Report {
        let form = match (self.quiet, self.json) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Json,
            (false, false) => Form::Lines,
        };
        Report { form, verbose: self.options.verbose, several }
    }
}

/// Asks every target at the same time, and tells of them in their order. The exit codes are those that `tell` returns.
async fn for_each<T: Send + 'static, F>(
    targets: Vec<Named>,
    ask: impl Fn(Named) -> F,
    tell: impl Fn(&str, &Answer<T>) -> u8,
) -> Vec<u8>
where
    F: Future<Output = Answer<T>> + Send + 'static,
{
    let asking: Vec<_> = targets.into_iter().map(|named| (named.text.clone(), tokio::spawn(ask(named)))).collect();
    let mut codes = Vec::new();
    for (target, asked) in asking {
        codes.push(tell(&target, &asked.await.expect("asking does not panic")));
    }
    codes
}

/// The exit code that says most of what is wrong.
fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    const FROM_BEST: [u8; 6] = [0, 4, 3, 2, 20, 1];
    let rank = |code: &u8| FROM_BEST.iter().position(|known| known == code);
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_code_decides() {
        assert_eq!(worst([0, 0]), 0);
        assert_eq!(worst([0, 4, 3]), 3);
        assert_eq!(worst([2, 4, 0]), 2);
        assert_eq!(worst([2, 20]), 20);
        assert_eq!(worst([20, 1]), 1);
    }

    #[test]
    fn waits_are_seconds_or_durations() {
        assert_eq!(parse_wait("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_wait("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_wait("1e19"), Ok(LONGEST_WAIT));
        assert!(parse_wait("-1").is_err() && parse_wait("soon").is_err());
    }
}
