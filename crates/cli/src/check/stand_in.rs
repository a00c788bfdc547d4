//! The command under the name of grpc-health-probe: its output to the letter, its exit codes, and its way to connect:
//! whatever goes wrong, it tries again until the time-out.

mod command_line;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use evenkeel_balance::Code;
use evenkeel_naming::Target;
use evenkeel_transport::ConnectProxy;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, sleep_until},
};

use self::command_line::Wanted;
use super::{
    credentials::CredentialsError,
    failure::{Cause, Failure},
    go::{GoDuration, quoted},
    options::Options,
    plan,
    probe::{Health, Plan},
    server::{Server, Way},
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whether the program was started under that name: `grpc_health_probe`, or as its releases are called
/// (`grpc_health_probe-linux-amd64`), or as Go builds it (`grpc-health-probe`).
pub(crate) fn is_meant(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    name.is_some_and(|name| name.replace('_', "-").starts_with("grpc-health-probe"))
}

/// Does what grpc-health-probe does with these arguments.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match command_line::parse(arguments) {
        Ok(Wanted::Probe(options)) => options,
        Ok(Wanted::Version) => {
            println!("evenkeel {}, in place of grpc_health_probe", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(refusal) => {
            eprint!("{refusal}");
            return ExitCode::from(1);
        }
    };
    ExitCode::from(probe(&options).unwrap_or_else(|end| {
        eprintln!("{}", end.line);
        end.code
    }))
}

/// The line that is printed last, and the exit code.
struct End {
    line: String,
    code: u8,
}

impl End {
    fn new(code: u8, line: impl Into<String>) -> Self {
        Self { line: line.into(), code }
    }
}

fn probe(options: &Options) -> Result<u8, End> {
    let address = options.addr.clone().unwrap_or_default();
    if address.is_empty() {
        return Err(End::new(1, "error: -addr not specified"));
    }
    options.timeouts().map_err(|problem| End::new(1, format!("error: {problem}")))?;
    if options.verbose {
        tell_options(&address, options);
    }
    let plan = plan::of(options, ConnectProxy::from_env()).map_err(|failure| unplanned(&failure, &address, options))?;
    let target = plan::target(&address).map_err(|failure| unreached(&address, &failure))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| End::new(2, format!("error: cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(ask(&plan, &target, &address, options));
    runtime.shutdown_background();
    let health = outcome?;
    if !health.is_serving() {
        let status = quoted(&health.to_string());
        return Err(End::new(4, format!("service unhealthy (responded with {status})")));
    }
    eprintln!("status: {health}");
    Ok(0)
}

async fn ask(plan: &Plan, target: &Target, address: &str, options: &Options) -> Result<Health, End> {
    let mut signals =
        Signals::new().map_err(|error| End::new(2, format!("error: cannot listen for signals: {error}")))?;
    let tell = |line: String| {
        if options.verbose {
            eprintln!("{line}");
        }
    };
    tell("establishing connection".to_owned());
    let begun = Instant::now();
    let server = tokio::select! {
        server = connect(plan, target) => server,
        () = signals.come() => Err(Failure::new(Cause::Closed, "context canceled")),
    };
    let server = server.map_err(|failure| unconnected(address, options, &failure))?;
    let connecting = GoDuration::from(begun.elapsed());
    tell(format!("connection established (took {connecting})"));
    let begun = Instant::now();
    let health = tokio::select! {
        health = plan.call_check(&server) => health,
        () = signals.come() => Err(Failure::of_call(Code::Cancelled, "context canceled", "")),
    };
    let health = health.map_err(|failure| uncalled(options, &failure))?;
    if health.is_serving() {
        tell(format!("time elapsed: connect={connecting} rpc={}", GoDuration::from(begun.elapsed())));
    }
    Ok(health)
}

/// Tries until the time-out; the failure is then a time-out, whatever its reason.
async fn connect(plan: &Plan, target: &Target) -> Result<Server, Failure> {
    let until = Instant::now() + plan.way.timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        let timeout = until.saturating_duration_since(Instant::now());
        match (Way { timeout, looks_again: false, ..plan.way.clone() }).connect(target).await {
            Ok(server) => return Ok(server),
            Err(failure) if failure.cause == Cause::Arguments => return Err(failure),
            Err(_) => {}
        }
        if Instant::now() + pause >= until {
            sleep_until(until.into()).await;
            return Err(Failure::new(Cause::ConnectTimeout, "context deadline exceeded"));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// SIGINT and SIGTERM, which are told of.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn come(&mut self) {
        let name = tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
        };
        eprintln!("cancellation received (signal: {name})");
    }
}

fn tell_options(address: &str, options: &Options) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    eprintln!("parsed options:");
    eprintln!("> addr={address} conn_timeout={} rpc_timeout={}", options.connect_timeout, options.rpc_timeout);
    let mut names: Vec<_> = options.rpc_headers.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        eprintln!("> headers: {{map[<{} redacted>]}}", names.len());
    }
    eprintln!("> tls={}", options.tls);
    if options.tls {
        eprintln!("  > no-verify={} ", options.tls_no_verify);
        eprintln!("  > ca-cert={}", text(&options.tls_ca_cert));
        eprintln!("  > client-cert={}", text(&options.tls_client_cert));
        eprintln!("  > client-key={}", text(&options.tls_client_key));
        eprintln!("  > server-name={}", text(&options.tls_server_name));
    }
    eprintln!("> alts={}", options.alts);
    eprintln!("> spiffe={}", options.spiffe);
}

fn unplanned(failure: &Failure, address: &str, options: &Options) -> End {
    match failure.cause {
        Cause::Spiffe => End::new(20, format!("failed to initialize tls credentials with spiffe. error={failure}")),
        Cause::Metadata => uncalled(options, failure),
        Cause::Arguments if options.tls && options.spiffe => End::new(1, failure.message.clone()),
        Cause::Arguments => match plan::credentials(options) {
            Err(error) if options.tls => {
                End::new(1, format!("failed to initialize tls credentials. error={}", as_go_says(&error)))
            }
            _ => End::new(1, format!("error: {failure}")),
        },
        _ => unreached(address, failure),
    }
}

fn unreached(address: &str, failure: &Failure) -> End {
    End::new(2, format!("error: failed to connect service at {}: {failure}", quoted(address)))
}

fn unconnected(address: &str, options: &Options, failure: &Failure) -> End {
    match failure.cause {
        Cause::ConnectTimeout => {
            let (service, limit) = (quoted(address), options.connect_timeout);
            End::new(2, format!("timeout: failed to connect service {service} within {limit}"))
        }
        _ => unreached(address, failure),
    }
}

fn uncalled(options: &Options, failure: &Failure) -> End {
    let (code, words) = failure.status.clone().unwrap_or((Code::Internal, failure.message.clone()));
    End::new(
        3,
        match code {
            Code::Unimplemented => {
                format!(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {words}"
                )
            }
            Code::DeadlineExceeded => format!("timeout: health rpc did not complete within {}", options.rpc_timeout),
            code => format!("error: health rpc failed: rpc error: code = {} desc = {words}", name_in_go(code)),
        },
    )
}

fn name_in_go(code: Code) -> String {
    match code {
        Code::Cancelled => "Canceled".to_owned(),
        Code::Ok => "OK".to_owned(),
        code => format!("{code:?}"),
    }
}

fn as_go_says(error: &CredentialsError) -> String {
    match error {
        CredentialsError::RootsUnread { path, error } => {
            let path = path.display();
            format!("failed to load root CA certificates from file ({path}) error=open {path}: {}", plain(error))
        }
        CredentialsError::NoRoots { path } => format!("no root CA certs parsed from file {}", path.display()),
        CredentialsError::IdentityUnread { path, error } => {
            format!("failed to load tls client cert/key pair. error=open {}: {}", path.display(), plain(error))
        }
        CredentialsError::Identity { problem, .. } => {
            format!("failed to load tls client cert/key pair. error=tls: {problem}")
        }
        CredentialsError::NoSystemRoots => error.to_string(),
    }
}

/// What the system says, in small letters and without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
