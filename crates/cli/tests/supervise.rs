//! `evenkeel supervise` as its users run it: real processes, ended in every way there is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "supervise/fixture.rs"]
mod fixture;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use fixture::{Supervised, alive, run};
use tonic::transport::{Channel, Endpoint};

fn request() -> EchoRequest {
    EchoRequest { message: "x".to_owned(), ..EchoRequest::default() }
}

/// Four replicas of a backend, and a proxy in front.
fn fleet(more: &str) -> String {
    let evenkeel = env!("CARGO_BIN_EXE_evenkeel");
    format!(
        "[service.echo]\ncommand = \"{evenkeel}\"\nargs = [\"demo-backend\", \"--stay\", \"--name\", \"{{replica}}\", \
         \"--port\", \"{{port}}\"]\nport = 0\n{more}\n[proxy.front]\nlisten = \"127.0.0.1:0\"\nservice = \"echo\"\n"
    )
}

async fn connect(supervised: &mut Supervised) -> EchoClient<Channel> {
    let address = supervised.proxy().await;
    EchoClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

/// Calls at a steady rate until it is told to stop: how many went well, and what became of the others.
fn load(client: EchoClient<Channel>, rate: u64) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(u64, Vec<String>)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let done = Arc::new(AtomicU64::new(0));
        let mut calls = tokio::task::JoinSet::new();
        let mut failures = Vec::new();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
        while !stopped.load(Relaxed) {
            tick.tick().await;
            let (mut client, done) = (client.clone(), Arc::clone(&done));
            calls.spawn(async move {
                client.unary(request()).await.map(|_| done.fetch_add(1, Relaxed)).map_err(|status| status.to_string())
            });
            while let Some(ended) = calls.try_join_next() {
                failures.extend(ended.unwrap().err());
            }
        }
        while let Some(ended) = calls.join_next().await {
            failures.extend(ended.unwrap().err());
        }
        (done.load(Relaxed), failures)
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_four_replicas_fails_no_call() {
    let mut supervised = Supervised::start(&fleet("replicas = 4\nsurge = false"));
    supervised.until(|status| status[0].serving == 4).await;
    let client = connect(&mut supervised).await;
    let before = supervised.pids().await;
    let (stop, calls) = load(client, 1_000);
    let (code, said, error) = supervised.command(&["restart", "echo"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(said.contains("4 of 4 serve"), "{said}");
    let after = supervised.pids().await;
    stop.store(true, Relaxed);
    let (done, failures) = calls.await.unwrap();
    assert_eq!(failures, Vec::<String>::new(), "of {done}");
    assert!(done > 1_000, "{done} calls were made");
    assert!(before.iter().all(|pid| !after.contains(pid) && !alive(*pid)), "{before:?} {after:?}");
    assert_eq!(supervised.stop("TERM").await, 0);
    assert!(!after.into_iter().any(alive), "nothing is left");
}

#[tokio::test]
async fn a_hangup_rolls_what_has_changed_and_a_bad_file_changes_nothing() {
    let mut supervised = Supervised::start(&fleet("replicas = 1"));
    supervised.until(|status| status[0].serving == 1).await;
    let mut client = connect(&mut supervised).await;
    let before = supervised.pids().await;
    supervised.write("[service.echo]\ncomand = \"x\"\n");
    supervised.signal("HUP").await;
    supervised.until_logged("unknown key `comand` in [service.echo] at line 2, column 1").await;
    assert_eq!(supervised.pids().await, before);
    supervised.write(&fleet("replicas = 2\nenvironment = { X = \"1\" }"));
    supervised.signal("HUP").await;
    supervised.until(|status| status[0].serving == 2 && status[0].rolling.is_none()).await;
    assert!(!supervised.pids().await.contains(&before[0]));
    client.unary(request()).await.unwrap();
    assert_eq!(supervised.stop("INT").await, 0);
}

#[tokio::test]
async fn a_crash_loop_is_told_with_its_last_lines_and_given_up_if_the_file_says_so() {
    let toml = "[service.a]\ncommand = \"sh\"\nargs = [\"-c\", \"echo no database >&2; exit 3\"]\n\
                crash_loop = { exits = 2, give_up = true }\nbackoff.initial = \"10ms\"\n\
                [service.b]\ncommand = \"sleep\"\nargs = [\"1000\"]\n";
    let supervised = Supervised::start(toml);
    supervised.until(|status| status[0].replicas[0].state == "crash-looping").await;
    let (code, table, _) = supervised.command(&["status"]).await;
    assert_eq!(code, 2);
    for expected in ["crash-looping", "2 failures within 60s", "exited with code 3", "given up", "no database"] {
        assert!(table.contains(expected), "{expected} in {table}");
    }
    assert_eq!(supervised.stop("TERM").await, 0);
}

#[tokio::test]
async fn a_service_that_hangs_is_restarted() {
    let more = "replicas = 1\nunhealthy_timeout = \"200ms\"\nstop_timeout = \"200ms\"\n\
                check = { interval = \"100ms\", timeout = \"500ms\", fall = 2 }";
    let mut supervised = Supervised::start(&fleet(more));
    supervised.until(|status| status[0].serving == 1).await;
    let mut client = connect(&mut supervised).await;
    let hung = supervised.pids().await[0];
    assert!(std::process::Command::new("kill").args(["-STOP", &hung.to_string()]).status().unwrap().success());
    supervised.until(|status| status[0].serving == 1 && status[0].replicas[0].pid != Some(hung)).await;
    assert!(!alive(hung));
    // The proxy hears of the new replica a moment after the status has it, and a busy machine may fail its checks again.
    while client.unary(request()).await.is_err() {}
    assert_eq!(supervised.stop("TERM").await, 0);
}

#[tokio::test]
async fn what_ignores_term_and_what_it_forked_is_killed() {
    let toml = "[service.a]\ncommand = \"sh\"\nstop_timeout = \"200ms\"\n\
                args = [\"-c\", \"trap '' TERM; setsid sleep 987654 & sleep 987654 & while :; do sleep 987654; done\"]\n";
    let supervised = Supervised::start(toml);
    supervised.until(|status| status[0].serving == 1).await;
    let pids = supervised.until_descendants(4).await;
    assert_eq!(supervised.stop("TERM").await, 0);
    assert_eq!(pids.into_iter().filter(|pid| alive(*pid)).collect::<Vec<_>>(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_second_signal_kills_at_once() {
    let toml = "[service.a]\ncommand = \"sh\"\nargs = [\"-c\", \"trap '' TERM; while :; do sleep 987654; done\"]\n\
                stop_timeout = \"1h\"\n";
    let supervised = Supervised::start(toml);
    supervised.until(|status| status[0].serving == 1).await;
    let pids = supervised.pids().await;
    supervised.signal("TERM").await;
    supervised.until(|status| status[0].replicas[0].state == "stopping").await;
    assert_eq!(supervised.stop("TERM").await, 0);
    assert!(!pids.into_iter().any(alive));
}

#[tokio::test]
async fn a_service_that_is_over_ends_the_supervisor_with_its_code() {
    for (script, expected) in [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)] {
        let toml = format!("[service.a]\ncommand = \"sh\"\nargs = [\"-c\", \"{script}\"]\nrestart = \"never\"\n");
        assert_eq!(Supervised::start(&toml).ended().await, expected, "{script}");
    }
}

#[tokio::test]
async fn it_works_on_where_its_logs_cannot_be_written() {
    let (reader, unread) = std::io::pipe().unwrap();
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let toml = "[service.a]\ncommand = \"sh\"\nargs = [\"-c\", \"head -c 200000 /dev/zero >&2; exit 3\"]\n\
                stop_timeout = \"100ms\"\nbackoff = { initial = \"10ms\", max = \"10ms\" }\n\
                [service.b]\ncommand = \"false\"\nbackoff = { initial = \"10ms\", max = \"10ms\" }\n";
    for stderr in [unread.into(), closed.into(), full.into()] {
        let supervised = Supervised::start_with(toml, stderr);
        supervised.until(|status| status[1].replicas[0].restarts > 10).await;
        assert_eq!(supervised.stop("TERM").await, 0);
    }
    drop(reader);
}

#[tokio::test]
async fn a_standby_takes_over_and_is_promoted() {
    let more = "replicas = 1\nstandby = 1\npromote_after = \"200ms\"\nbackoff = { initial = \"1h\", max = \"1h\" }";
    let mut supervised = Supervised::start(&fleet(more));
    supervised.until(|status| status[0].serving == 2).await;
    let mut client = connect(&mut supervised).await;
    assert_eq!(client.unary(request()).await.unwrap().into_inner().backend, "0");
    let primary = supervised.pids().await[0];
    assert!(std::process::Command::new("kill").args(["-KILL", &primary.to_string()]).status().unwrap().success());
    supervised.until(|status| status[0].replicas[1].role == "primary").await;
    assert_eq!(client.unary(request()).await.unwrap().into_inner().backend, "1");
    supervised.until_logged("echo/1: promoted to primary: no primary has served for 200ms").await;
    assert_eq!(supervised.stop("TERM").await, 0);
}

#[tokio::test]
async fn a_rolling_restart_sends_no_call_to_the_standby() {
    let mut supervised = Supervised::start(&fleet("replicas = 2\nstandby = 1\nsurge = false"));
    supervised.until(|status| status[0].serving == 3).await;
    let mut client = connect(&mut supervised).await;
    let (mut calls, mut of_the_standby) = (0, 0);
    let (code, said, error) = {
        let mut restart = std::pin::pin!(supervised.command(&["restart", "echo"]));
        loop {
            tokio::select! {
                ended = &mut restart => break ended,
                answer = client.unary(request()) => {
                    calls += 1;
                    of_the_standby += u32::from(answer.unwrap().into_inner().backend == "2");
                }
            }
        }
    };
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(calls > 100 && of_the_standby == 0, "{of_the_standby} of {calls}");
    assert_eq!(supervised.stop("TERM").await, 0);
}

#[tokio::test]
async fn a_switch_by_hand_sends_calls_to_the_standby_and_back() {
    let mut supervised = Supervised::start(&fleet("replicas = 1\nstandby = 1"));
    supervised.until(|status| status[0].serving == 2).await;
    let mut client = connect(&mut supervised).await;
    assert_eq!(client.unary(request()).await.unwrap().into_inner().backend, "0");
    for (group, backend) in [("1", "1"), ("auto", "0")] {
        let (code, text, error) = supervised.command(&["switch", "front", group]).await;
        assert_eq!((code, error.as_str()), (0, ""), "{text}");
        while client.unary(request()).await.unwrap().into_inner().backend != backend {}
        let (_, text, _) = supervised.command(&["status"]).await;
        assert_eq!(text.contains("all calls sent to group 1 by hand"), group == "1", "{text}");
        assert!(text.contains("echo/1") && text.contains("before echo: READY, by failover"), "{text}");
    }
    assert_eq!(supervised.stop("TERM").await, 0);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let dir = fixture::Dir::new();
    let file = dir.write("a.toml", "[service.a]\ncommand = \"a\"\nafter = [\"b\"]\n[service.bb]\ncommand = \"b\"\n");
    let (code, _, error) = run(&["supervise", &file, "--check"]).await;
    assert_eq!((code, error.contains("no service of this file: `b`")), (1, true), "{error}");
    assert!(error.contains("did you mean `bb`?"), "{error}");
    let file = dir.write("b.toml", "[service.a]\ncommand = \"a\"\n");
    assert_eq!(run(&["supervise", &file, "--check"]).await.0, 0);
    let service = "[service.a]\ncommand = \"a\"\nport = 0\n[proxy.p]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n";
    let file = dir.write("c.toml", service);
    let (code, _, error) = run(&["proxy", "--config", &file]).await;
    assert_eq!((code, error.contains("which `evenkeel supervise` runs")), (1, true), "{error}");
    let (code, _, error) = run(&["status", "--control", "/nowhere/x.sock"]).await;
    assert_eq!((code, error.contains("no supervisor answers at /nowhere/x.sock")), (1, true), "{error}");

    let supervised = Supervised::start("[service.sleeper]\ncommand = \"sleep\"\nargs = [\"1000\"]\n");
    supervised.until(|status| status[0].serving == 1).await;
    let (code, _, error) = supervised.command(&["restart", "sleepr"]).await;
    assert_eq!((code, error.contains("did you mean `sleeper`?")), (1, true), "{error}");
    assert_eq!(supervised.command(&["stop", "sleeper"]).await.0, 0);
    supervised.until(|status| status[0].replicas[0].state == "stopped").await;
    assert_eq!(supervised.command(&["start", "sleeper/0"]).await.0, 0);
    supervised.until(|status| status[0].serving == 1).await;
    assert_eq!(supervised.stop("TERM").await, 0);
}
