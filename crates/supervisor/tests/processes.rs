//! Real processes. Whoever waits for children waits for all of them, so that each case has a supervisor of its own: this
//! program started again with [`CASE`] and the case's name. It is the launcher as well.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

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
    ($($name:ident),* $(,)?) => { &[$(Case { name: stringify!($name), run: || Box::pin($name()) }),*] };
}

const CASES: &[Case] = cases![
    an_exit_code_is_told,
    a_signal_is_told,
    children_that_end_at_once_are_all_told,
    what_cannot_be_started_is_said_precisely,
    a_user_and_a_directory_are_taken_on,
    limits_and_environment_reach_the_program,
    a_start_that_is_given_up_leaves_nothing,
    one_at_a_time_waits_for_children,
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
    output_is_forwarded_with_prefixes,
    output_without_an_end_is_cut,
    a_reader_that_is_stuck_holds_up_no_exit,
    a_flood_does_not_silence_others,
    a_program_tells_us_how_it_is,
    a_program_of_another_user_can_tell_us,
    a_watchdog_finds_a_hang,
    what_a_program_uses_is_seen,
    as_process_one_orphans_are_reaped,
];

/// Started by other cases.
const INNER_CASES: &[Case] = cases![starts_and_waits];

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

/// Runs a script to its end, and gives what it wrote.
async fn lines_of(processes: &Processes, command: &Command) -> Vec<String> {
    let child = processes.start(command).await.unwrap();
    child.exited().await;
    child.drained().await;
    child.last_lines().into_iter().map(|line| line.line).collect()
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

async fn an_exit_code_is_told() {
    let processes = forwarding();
    let child = processes.start(&sh("exit 3")).await.unwrap();
    assert_eq!(child.exited().await, Exit::Code(3));
    assert_eq!(child.exit(), Some(Exit::Code(3)), "again");
}

async fn a_signal_is_told() {
    let processes = forwarding();
    let child = processes.start(&sh("kill -9 $$")).await.unwrap();
    let exit = child.exited().await;
    assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
    let child = processes.start(&sh("kill -TERM $$")).await.unwrap();
    assert_eq!(child.exited().await.code(), 143);
}

async fn children_that_end_at_once_are_all_told() {
    let processes = forwarding();
    let mut starting = tokio::task::JoinSet::new();
    for number in 0..60_u8 {
        let processes = processes.clone();
        starting.spawn(async move {
            let child = processes.start(&sh(&format!("exit {number}"))).await.unwrap();
            (child.exited().await, Exit::Code(number))
        });
    }
    for (exit, expected) in starting.join_all().await {
        assert_eq!(exit, expected);
    }
    assert_eq!(our_children(), [0; 0], "no zombies");
}

async fn what_cannot_be_started_is_said_precisely() {
    let processes = forwarding();
    let plain = tempfile("plain", "not a program");
    let script = tempfile("script", "#!/no/such/interpreter\n");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let command = |program: &str| Command::new("case/0", program);
    let in_directory = |directory: &str| Command { directory: Some(directory.into()), ..sh("true") };
    let user = |user: &str| Command { user: Some(user.to_owned()), ..sh("true") };
    let mut missing = command("no-such-program");
    missing.environment.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    let cases = [
        (missing, "cannot execute `no-such-program`: No such file"),
        (command(&script), "interpreter"),
        (command(&plain), "may not execute it"),
        (command("/"), "Permission denied"),
        (in_directory("/no/such/directory"), "cannot enter the directory /no/such/directory: No such file"),
        (in_directory("/etc/passwd"), "Not a directory"),
        (user("no-such-user"), "no user `no-such-user`"),
        (user("3999999999"), "name the group"),
        (Command { group: Some("root".to_owned()), ..sh("true") }, "without a user"),
        (Command { group: Some("no-such-group".to_owned()), ..user("root") }, "no group `no-such-group`"),
        (Command { oom_score_adjust: Some(1001), ..sh("true") }, "OOM score: Invalid argument"),
        (command("with\0nul"), "nul byte"),
    ];
    for (command, expected) in cases {
        let error = processes.start(&command).await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    }
    [plain, script].into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
    until(|| our_children().is_empty()).await;
}

/// A file of this case's own.
fn tempfile(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("evenkeel-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn a_user_and_a_directory_are_taken_on() {
    let processes = forwarding();
    let script = "id -u; id -g; id -G; pwd; umask; echo $USER $HOME";
    let command = Command { directory: Some("/".into()), umask: Some(0o027), ..sh(script) };
    assert_eq!(lines_of(&processes, &command).await[3..5], ["/", "0027"]);
    if !is_root() {
        let other = Command { user: Some("0".to_owned()), group: Some("0".to_owned()), ..command };
        let error = processes.start(&other).await.unwrap_err().to_string();
        assert!(error.contains("run by root"), "{error}");
        return;
    }
    let other = Command { user: Some("1234".to_owned()), group: Some("2345".to_owned()), ..command.clone() };
    assert_eq!(lines_of(&processes, &other).await[..3], ["1234", "2345", "2345"]);
    let nobody = Command { user: Some("nobody".to_owned()), ..command };
    let lines = lines_of(&processes, &nobody).await;
    assert!(lines[0] == "65534" && lines[5].starts_with("nobody "), "{lines:?}");
    let locked = format!("{}/evenkeel-{}-locked", std::env::temp_dir().display(), std::process::id());
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&locked).unwrap();
    let locked_out = Command { directory: Some(locked.clone().into()), ..nobody };
    let error = processes.start(&locked_out).await.unwrap_err().to_string();
    assert!(error.contains(&format!("enter the directory {locked}: Permission denied")), "{error}");
    std::fs::remove_dir(locked).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

async fn limits_and_environment_reach_the_program() {
    let processes = forwarding();
    let mut command = sh("ulimit -n; ulimit -Hn; ulimit -c; echo $GREETING; cat /proc/$$/oom_score_adj; env | wc -l");
    command.limits.insert(Resource::Nofile, Limit { soft: Some(123), hard: Some(456) });
    command.limits.insert(Resource::Core, Limit::both(0));
    command.environment.insert("GREETING".to_owned(), "hello".to_owned());
    command.oom_score_adjust = Some(500);
    command.inherits_environment = false;
    let lines = lines_of(&processes, &command).await;
    assert_eq!(lines[..5], ["123", "456", "0", "hello", "500"]);
    assert!(lines[5].parse::<u32>().unwrap() <= 6, "ours is not inherited: {lines:?}");

    let mut command = sh("while :; do :; done");
    command.limits.insert(Resource::Cpu, Limit::both(1));
    let exit = processes.start(&command).await.unwrap().exited().await;
    assert!(matches!(exit, Exit::Signal(9 | 24)), "SIGXCPU or SIGKILL: {exit}");
}

async fn a_start_that_is_given_up_leaves_nothing() {
    let processes = forwarding();
    let command = sh("sleep 1000");
    for _ in 0..20 {
        let start = processes.start(&command);
        let given_up = tokio::time::timeout(Duration::from_micros(500), start).await;
        if let Ok(started) = given_up {
            started.unwrap().stop(Signal::KILL, SHORT).await.unwrap();
        }
    }
    until(|| our_children().is_empty()).await;
}

async fn one_at_a_time_waits_for_children() {
    let processes = forwarding();
    let second = Processes::new(Output::new(Format::Text));
    assert!(matches!(second, Err(ProcessesError::SecondInProcess)));
    let child = processes.start(&sh("echo ready; read nothing < /dev/zero")).await.unwrap();
    drop(processes);
    written(&child, "ready").await;
    assert!(is_running(child.pid()), "a child lives on without what started it");
    child.stop(Signal::TERM, LONG).await.unwrap();
    drop(child);
    until(|| Processes::new(Output::new(Format::Text)).is_ok()).await;
}

async fn a_stop_lets_the_orderly_end_in_order() {
    let processes = forwarding();
    let child = processes.start(&sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")).await.unwrap();
    written(&child, "ready").await;
    let stopped = child.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!(stopped, Stopped { exit: Some(Exit::Code(7)), killed: vec![], left: vec![] });
}

async fn a_stop_kills_what_ignores_it() {
    let processes = forwarding();
    let child = processes.start(&sh("trap '' TERM; echo ready; while :; do sleep 0.01; done")).await.unwrap();
    written(&child, "ready").await;
    let stopped = child.stop(Signal::TERM, SHORT).await.unwrap();
    assert_eq!((stopped.exit, stopped.left.len()), (Some(Exit::Signal(9)), 0));
    assert!(stopped.killed.iter().any(|killed| killed.pid == child.pid()), "{stopped:?}");
    until(|| our_children().is_empty()).await;
}

async fn a_stopped_process_hears_a_stop() {
    let processes = forwarding();
    let child = processes.start(&sh("trap 'exit 7' TERM; kill -STOP $$; sleep 1000")).await.unwrap();
    until(|| state(child.pid()).is_some_and(|(state, _)| state == "T")).await;
    let stopped = child.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!((stopped.exit, stopped.killed.len()), (Some(Exit::Code(7)), 0));
}

async fn grandchildren_end_with_the_group() {
    let processes = forwarding();
    let script = "(trap '' TERM; echo pid $BASHPID; exec sleep 1000) & \
                  sleep 1000 & echo pid $!; (sleep 1000 & echo pid $!; wait) & wait";
    let child = processes.start(&Command { program: "bash".to_owned(), ..sh(script) }).await.unwrap();
    until(|| pids(&child, "pid").len() == 3).await;
    assert!(child.remains().await.unwrap().len() >= 4);
    let stopped = child.stop(Signal::TERM, SHORT).await.unwrap();
    assert_eq!((stopped.exit, stopped.left.len()), (Some(Exit::Signal(15)), 0));
    assert_eq!(stopped.killed.len(), 1, "the one that ignores it: {stopped:?}");
    assert!(pids(&child, "pid").into_iter().all(|pid| !is_running(pid)));
    until(|| our_children().is_empty()).await;
}

async fn what_left_the_group_is_found_and_ended() {
    let processes = forwarding();
    // One in a session of its own, one that has also lost its parent, and one that has also lost its environment.
    let script = "setsid sh -c 'echo pid $$; exec sleep 1000' & \
                  (setsid sh -c 'echo pid $$; exec sleep 1000' &) ; \
                  env -i setsid sh -c 'echo pid $$; exec sleep 1000' & wait";
    let child = processes.start(&sh(script)).await.unwrap();
    until(|| pids(&child, "pid").len() == 3).await;
    let (left, remains) = (pids(&child, "pid"), child.remains().await.unwrap());
    assert!(left.iter().all(|pid| remains.iter().any(|remain| remain.pid == *pid)), "{left:?} in {remains:?}");
    let stopped = child.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!(stopped, Stopped { exit: Some(Exit::Signal(15)), killed: vec![], left: vec![] });
    assert!(left.into_iter().all(|pid| !is_running(pid)));
    until(|| our_children().is_empty()).await;
}

async fn what_a_crash_leaves_behind_is_found_and_ended() {
    let processes = forwarding();
    let script = "sleep 1000 & echo pid $!; (setsid sleep 1000 & echo pid $!); kill -SEGV $$";
    let child = processes.start(&sh(script)).await.unwrap();
    let neighbour = processes.start(&Command { replica: "case/1".to_owned(), ..sh("sleep 1000") }).await.unwrap();
    assert_eq!(child.exited().await, Exit::Signal(11), "not held up by those that keep its pipes open");
    child.drained().await;
    let mut expected = pids(&child, "pid");
    expected.sort_unstable();
    // The shell's background process may still be on its way to `sleep`, under the same number.
    let remains: Vec<i32> = child.remains().await.unwrap().iter().map(|remain| remain.pid).collect();
    assert_eq!(remains, expected);
    let stopped = child.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!((stopped.killed.len(), stopped.left.len()), (0, 0));
    assert!(expected.into_iter().all(|pid| !is_running(pid)));
    assert_eq!(child.remains().await.unwrap(), []);
    assert_eq!(neighbour.exit(), None, "others are not touched");
    assert_eq!(our_children(), [neighbour.pid()]);
    neighbour.stop(Signal::KILL, SHORT).await.unwrap();
}

async fn strays_that_hid_are_ended_at_the_end() {
    let processes = forwarding();
    let script = "(env -i setsid sh -c 'echo pid $$; sleep 1000 & exec sleep 1000' &)";
    let child = processes.start(&sh(script)).await.unwrap();
    until(|| pids(&child, "pid").len() == 1).await;
    child.stop(Signal::TERM, LONG).await.unwrap();
    let hidden = pids(&child, "pid")[0];
    assert!(is_running(hidden), "nothing says whose it is");
    let neighbour = processes.start(&sh("sleep 1000 & sleep 1000")).await.unwrap();
    until(|| our_children().len() == 2).await;
    let killed = processes.kill_strays().await.unwrap();
    assert!(killed.iter().any(|killed| killed.pid == hidden), "{killed:?}");
    assert!(!is_running(hidden) && neighbour.exit().is_none());
    until(|| our_children() == [neighbour.pid()]).await;
    neighbour.stop(Signal::KILL, SHORT).await.unwrap();
    assert_eq!(processes.strays().await.unwrap(), []);
}

async fn a_fork_race_is_won() {
    let processes = forwarding();
    // Each process of it goes into a session of its own, starts the next one, and ends.
    // If it is lost, the line ends by itself after a thousand.
    let script = "trap '' TERM; export N=1000 NEXT='N=$((N-1)); [ $N -gt 0 ] || exit; setsid sh -c \"$NEXT\" & sleep 0.02'; \
                  sh -c \"$NEXT\"";
    let child = processes.start(&sh(script)).await.unwrap();
    child.exited().await;
    let stopped = child.stop(Signal::TERM, SHORT).await.unwrap();
    assert!(!stopped.killed.is_empty() && stopped.left.is_empty(), "{stopped:?}");
    until(|| our_children().is_empty()).await;
    assert_eq!(processes.strays().await.unwrap(), []);
}

async fn orphans_are_reaped() {
    let processes = forwarding();
    let child = processes.start(&sh("for i in 1 2 3 4 5; do (setsid sh -c 'exit 9' &); done")).await.unwrap();
    assert_eq!(child.exited().await, Exit::Code(0));
    until(|| processes.orphans_reaped() >= 5).await;
    assert_eq!(our_children(), [0; 0], "no zombies");
}

async fn a_signal_can_be_for_the_program_alone() {
    let processes = forwarding();
    let script = "trap 'echo program' HUP; (trap 'echo other' HUP; echo ready; while :; do sleep 0.01; done) & \
                  while :; do sleep 0.01; done";
    let child = processes.start(&sh(script)).await.unwrap();
    written(&child, "ready").await;
    assert!(child.signal(Signal::HUP).await.unwrap());
    written(&child, "program").await;
    assert!(!child.last_lines().iter().any(|line| line.line == "other"));
    child.signal_all(Signal::HUP).await.unwrap();
    written(&child, "other").await;
    child.stop(Signal::TERM, LONG).await.unwrap();
    assert!(!child.signal(Signal::HUP).await.unwrap(), "there is nobody any more");
}

async fn children_die_with_their_supervisor() {
    let processes = forwarding();
    // The supervisor is this program with another case, which we are not the reaper of.
    let args = vec![CASE.to_owned(), "starts_and_waits".to_owned()];
    let inner = Command { args, ..Command::new("case/0", ourselves()) };
    let inner = processes.start(&inner).await.unwrap();
    until(|| inner.last_lines().iter().any(|line| line.line.starts_with("case/0 | pid "))).await;
    let child = pids(&inner, "case/0 | pid")[0];
    assert!(is_running(child));
    inner.signal(Signal::KILL).await.unwrap();
    assert_eq!(inner.exited().await, Exit::Signal(9));
    until(|| !is_running(child)).await;
}

async fn starts_and_waits() {
    let processes = forwarding();
    let child = processes.start(&sh("echo pid $$; trap '' TERM; while :; do sleep 0.01; done")).await.unwrap();
    child.exited().await;
}

/// What is written to it, for others to see.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn output_is_forwarded_with_prefixes() {
    let (stdout, stderr) = (Written::default(), Written::default());
    let output = Output::to(Format::Text, stdout.clone(), stderr.clone());
    let processes = Processes::new(output.clone()).unwrap();
    // The last line has no end, and a process that is left behind keeps the pipe open.
    let child = processes.start(&sh("echo one; echo two >&2; sleep 1000 & printf three")).await.unwrap();
    child.exited().await;
    child.drained().await;
    output.flush().await;
    assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("case/0 | one\ncase/0 | three\n", "case/0 | two\n"));
    child.stop(Signal::KILL, SHORT).await.unwrap();
}

async fn output_without_an_end_is_cut() {
    let stdout = Written::default();
    let output = Output::to(Format::Text, stdout.clone(), std::io::sink());
    let processes = Processes::new(output.clone()).unwrap();
    let child = processes.start(&sh("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end")).await.unwrap();
    child.exited().await;
    child.drained().await;
    output.flush().await;
    let text = stdout.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 17, "16 pieces and the last line");
    assert!(lines[0].starts_with("case/0 | xxx") && lines[0].len() == 9 + 65536);
    assert!(lines[1..16].iter().all(|line| line.starts_with("case/0 + xxx")));
    assert_eq!((text.matches('x').count(), lines[16]), (1_000_000, "case/0 | end"));
    assert!(child.last_lines().iter().all(|line| line.line.len() <= 1024));
}

/// A stream whose reader has stopped reading, until it is let go.
struct Stuck(std::sync::mpsc::Receiver<()>, Written);

impl std::io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn a_reader_that_is_stuck_holds_up_no_exit() {
    let (let_go, stuck) = std::sync::mpsc::channel();
    let (stdout, stderr) = (Written::default(), Written::default());
    let output = Output::to(Format::Text, Stuck(stuck, stdout.clone()), stderr.clone());
    let processes = Processes::new(output.clone()).unwrap();
    let flood = processes.start(&sh("yes 0123456789")).await.unwrap();
    let quiet = processes.start(&sh("echo words; echo errors >&2; exit 5")).await.unwrap();
    assert_eq!(quiet.exited().await, Exit::Code(5));
    until(|| stderr.text() == "case/0 | errors\n").await;
    // It waits in its own write: the kernel says where.
    until(|| state(flood.pid()).is_some_and(|(state, _)| state == "S")).await;
    let memory = resident_kib();
    let stopped = flood.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!((stopped.exit, stopped.killed.len()), (Some(Exit::Signal(15)), 0));
    assert!(resident_kib() < memory + 10_000, "nothing grows");
    drop(let_go);
    quiet.drained().await;
    output.flush().await;
    assert!(stdout.text().contains("case/0 | words\n"));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn a_flood_does_not_silence_others() {
    let stdout = Written::default();
    let output = Output::to(Format::Text, Discarding(stdout.clone()), std::io::sink());
    let processes = Processes::new(output.clone()).unwrap();
    let flood = processes.start(&sh("exec yes")).await.unwrap();
    written(&flood, "y").await;
    let memory = resident_kib();
    for _ in 0..10 {
        let quiet = processes.start(&Command { replica: "quiet/0".to_owned(), ..sh("echo heard") }).await.unwrap();
        quiet.exited().await;
        quiet.drained().await;
    }
    until(|| stdout.text().matches("quiet/0 | heard").count() == 10).await;
    assert!(resident_kib() < memory + 20_000, "nothing grows: {memory} KiB before, {} after", resident_kib());
    flood.stop(Signal::TERM, LONG).await.unwrap();
}

/// Keeps what is not the flood's.
struct Discarding(Written);

impl std::io::Write for Discarding {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let kept: Vec<&[u8]> =
            bytes.split_inclusive(|byte| *byte == b'\n').filter(|l| !l.starts_with(b"case/0")).collect();
        self.0.write_all(&kept.concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn ourselves() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

/// A script that can speak `sd_notify`, by `tell READY=1`.
fn notifying(script: &str, watchdog: Option<Duration>) -> Command {
    let script = format!("tell() {{ {} {TELL} \"$1\"; }}; {script}", ourselves());
    Command { notify: Some(Notify { watchdog }), ..sh(&script) }
}

fn tell(message: &str) -> ExitCode {
    let socket = std::env::var_os("NOTIFY_SOCKET").expect("we are told where");
    let sent = std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(message.as_bytes(), socket);
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn a_program_tells_us_how_it_is() {
    let processes = forwarding();
    let script = "echo $NOTIFY_SOCKET; echo pid $WATCHDOG_PID $$ $WATCHDOG_USEC; \
                  tell 'STATUS=loading'; tell \"$(printf 'READY=1\\nSTATUS=serving')\"; tell STOPPING=1; exit 4";
    let child = processes.start(&notifying(script, Some(LONG))).await.unwrap();
    let mut notices = child.notices().unwrap();
    notices.wait_for(|notices| notices.is_ready).await.unwrap();
    assert_eq!(child.exited().await, Exit::Code(4));
    let heard = notices.wait_for(|notices| notices.is_stopping).await.unwrap().clone();
    assert_eq!(heard.status.as_deref(), Some("serving"));
    child.drained().await;
    let lines = child.last_lines();
    let words: Vec<&str> = lines[1].line.split(' ').collect();
    assert_eq!((words[1], words[3]), (words[2], "30000000"));
    let socket = std::path::PathBuf::from(&lines[0].line);
    until(|| !socket.parent().unwrap().exists()).await;
    let plain = processes.start(&sh("echo ${NOTIFY_SOCKET-none}")).await.unwrap();
    assert!(plain.notices().is_none());
    plain.exited().await;
    plain.drained().await;
    assert_eq!(plain.last_lines()[0].line, "none");
}

async fn a_program_of_another_user_can_tell_us() {
    if !is_root() {
        return;
    }
    let processes = forwarding();
    let command = notifying("tell READY=1 && sleep 1000", None);
    let child = processes.start(&Command { user: Some("nobody".to_owned()), ..command }).await.unwrap();
    child.notices().unwrap().wait_for(|notices| notices.is_ready).await.unwrap();
    child.stop(Signal::TERM, LONG).await.unwrap();
}

async fn a_watchdog_finds_a_hang() {
    let processes = forwarding();
    let script = "for i in 1 2 3 4 5; do tell WATCHDOG=1; done; echo hung; sleep 1000";
    let child = processes.start(&notifying(script, Some(LONG))).await.unwrap();
    tokio::select! {
        () = child.falls_silent(LONG) => panic!("it spoke"),
        () = written(&child, "hung") => {}
    }
    child.falls_silent(SHORT).await;
    child.stop(Signal::TERM, LONG).await.unwrap();

    let child = processes.start(&notifying("tell WATCHDOG=trigger; sleep 1000", None)).await.unwrap();
    child.falls_silent(LONG).await;
    child.stop(Signal::TERM, LONG).await.unwrap();
}

async fn what_a_program_uses_is_seen() {
    let processes = forwarding();
    let child = processes.start(&sh("while :; do :; done")).await.unwrap();
    until(|| child.facts().unwrap().cpu > Duration::ZERO).await;
    let facts = child.facts().unwrap();
    assert!(facts.resident > 100_000 && facts.threads == 1 && facts.uptime >= facts.cpu / 2, "{facts:?}");
    child.stop(Signal::KILL, SHORT).await.unwrap();
    assert_eq!(child.facts().unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

async fn as_process_one_orphans_are_reaped() {
    if !is_root() {
        return;
    }
    let processes = forwarding();
    for case in ["orphans_are_reaped", "what_left_the_group_is_found_and_ended", "a_stop_kills_what_ignores_it"] {
        let args = ["--pid", "--fork", "--mount-proc", &ourselves(), CASE, case].map(str::to_owned).to_vec();
        let child = processes.start(&Command { args, ..Command::new("case/0", "unshare") }).await.unwrap();
        let exit = child.exited().await;
        child.drained().await;
        assert!(exit.is_success(), "{case} {exit}: {:#?}", child.last_lines());
    }
}
