//! Real signals. One test in this process, since they go to the whole of it.
#![cfg(unix)]

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel_health::ServingStatus::{NotServing, Serving};
use evenkeel_health::{Drain, DrainError, service};

fn send(signal: &str, process: u32) -> Result<(), Box<dyn Error>> {
    let status = Command::new("kill").args([signal, &process.to_string()]).status()?;
    assert!(status.success());
    Ok(())
}

#[tokio::test]
async fn a_signal_begins_the_drain_and_a_second_one_ends_it() -> Result<(), Box<dyn Error>> {
    let (reporter, _health) = service();
    let endless = Drain { grace: Duration::MAX, deadline: Duration::MAX };
    let draining = reporter.drain_on_signal(endless)?;
    let mut running = std::pin::pin!(draining.run(|signal| async {
        signal.await;
        pending::<Result<(), Infallible>>().await
    }));
    send("-TERM", std::process::id())?;
    assert_eq!(reporter.status(""), Serving, "nobody has polled yet: the signal is kept");
    while reporter.status("") == Serving {
        tokio::select! {
            biased;
            ended = &mut running => panic!("one signal must not end the drain: {ended:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(reporter.status(""), NotServing);
    send("-INT", std::process::id())?;
    assert!(matches!(running.await, Err(DrainError::Hurried)));
    Ok(())
}

/// A process of its own, whose server does not `run` under the drain and hangs.
#[tokio::test]
#[ignore = "the test below runs it, and sends it signals"]
async fn hanging_process() -> Result<(), Box<dyn Error>> {
    let (reporter, _health) = service();
    let mut draining = reporter.drain_on_signal(Drain { grace: Duration::ZERO, deadline: Duration::MAX })?;
    tokio::select! {
        biased;
        () = &mut draining => panic!("no signal has been sent"),
        () = tokio::task::yield_now() => writeln!(stdout(), "\nready")?,
    }
    draining.await;
    writeln!(stdout(), "\ndrained")?;
    pending().await
}

#[test]
fn a_second_signal_exits_a_process_that_does_not_run_under_its_drain() -> Result<(), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["hanging_process", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut wait_for = |word: &str| lines.any(|line| line.is_ok_and(|line| line == word));
    assert!(wait_for("ready"));
    send("-TERM", child.id())?;
    assert!(wait_for("drained"));
    send("-TERM", child.id())?;
    assert_eq!(child.wait()?.code(), Some(1));
    Ok(())
}
