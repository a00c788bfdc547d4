//! Real signals. One test, since they go to the whole process.
#![cfg(unix)]

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::process::Command;
use std::time::Duration;

use evenkeel_health::ServingStatus::{NotServing, Serving};
use evenkeel_health::{Drain, DrainError, service};

fn send(signal: &str) -> Result<(), Box<dyn Error>> {
    let status = Command::new("kill").args([signal, &std::process::id().to_string()]).status()?;
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
    send("-TERM")?;
    assert_eq!(reporter.status(""), Serving, "nobody has polled yet: the signal is kept");
    while reporter.status("") == Serving {
        tokio::select! {
            biased;
            ended = &mut running => panic!("one signal must not end the drain: {ended:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(reporter.status(""), NotServing);
    send("-INT")?;
    assert!(matches!(running.await, Err(DrainError::Hurried)));
    Ok(())
}
