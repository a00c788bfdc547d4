//! How children are started, and how their ends are told.

use super::*;

/// Runs a script to its end, and gives what it wrote.
async fn lines_of(processes: &Processes, command: &Command) -> Vec<String> {
    let child = processes.start(command).await.unwrap();
    child.exited().await;
    child.drained().await;
    child.last_lines().into_iter().map(|line| line.line).collect()
}

pub(super) async fn an_exit_code_is_told() {
    let processes = forwarding();
    let child = processes.start(&sh("exit 3")).await.unwrap();
    assert_eq!(child.exited().await, Exit::Code(3));
    assert_eq!(child.exit(), Some(Exit::Code(3)), "again");
}

pub(super) async fn a_signal_is_told() {
    let processes = forwarding();
    let child = processes.start(&sh("kill -9 $$")).await.unwrap();
    let exit = child.exited().await;
    assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
    let child = processes.start(&sh("kill -TERM $$")).await.unwrap();
    assert_eq!(child.exited().await.code(), 143);
}

pub(super) async fn children_that_end_at_once_are_all_told() {
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

pub(super) async fn what_cannot_be_started_is_said_precisely() {
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
    for path in [plain, script] {
        std::fs::remove_file(path).unwrap();
    }
    until(|| our_children().is_empty()).await;
}

/// A file of this case's own.
fn tempfile(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("evenkeel-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(super) async fn a_user_and_a_directory_are_taken_on() {
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

pub(super) async fn limits_and_environment_reach_the_program() {
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

pub(super) async fn a_start_that_is_given_up_leaves_nothing() {
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

pub(super) async fn one_at_a_time_waits_for_children() {
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

pub(super) async fn what_a_program_uses_is_seen() {
    let processes = forwarding();
    let child = processes.start(&sh("while :; do :; done")).await.unwrap();
    until(|| child.facts().unwrap().cpu > Duration::ZERO).await;
    let facts = child.facts().unwrap();
    assert!(facts.resident > 100_000 && facts.threads == 1 && facts.uptime >= facts.cpu / 2, "{facts:?}");
    child.stop(Signal::KILL, SHORT).await.unwrap();
    assert_eq!(child.facts().unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
