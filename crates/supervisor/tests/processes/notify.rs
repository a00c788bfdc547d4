//! What children tell us by `sd_notify`.

use super::*;

/// A script that can speak `sd_notify`, by `tell READY=1`.
fn notifying(script: &str, watchdog: Option<Duration>) -> Command {
    let script = format!("tell() {{ {} {TELL} \"$1\"; }}; {script}", ourselves());
    Command { notify: Some(Notify { watchdog }), ..sh(&script) }
}

pub(super) async fn a_program_tells_us_how_it_is() {
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

pub(super) async fn a_program_of_another_user_can_tell_us() {
    if !is_root() {
        return;
    }
    let processes = forwarding();
    let command = notifying("tell READY=1 && sleep 1000", None);
    let child = processes.start(&Command { user: Some("nobody".to_owned()), ..command }).await.unwrap();
    child.notices().unwrap().wait_for(|notices| notices.is_ready).await.unwrap();
    child.stop(Signal::TERM, LONG).await.unwrap();
}

pub(super) async fn a_watchdog_finds_a_hang() {
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
