//! How children end, with all that they have started.

use super::*;

pub(super) async fn a_stop_lets_the_orderly_end_in_order() {
    let processes = forwarding();
    let child = processes.start(&sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")).await.unwrap();
    written(&child, "ready").await;
    let stopped = child.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!(stopped, Stopped { exit: Some(Exit::Code(7)), killed: vec![], left: vec![] });
}

pub(super) async fn a_stop_kills_what_ignores_it() {
    let processes = forwarding();
    let child = processes.start(&sh("trap '' TERM; echo ready; while :; do sleep 0.01; done")).await.unwrap();
    written(&child, "ready").await;
    let stopped = child.stop(Signal::TERM, SHORT).await.unwrap();
    assert_eq!((stopped.exit, stopped.left.len()), (Some(Exit::Signal(9)), 0));
    assert!(stopped.killed.iter().any(|killed| killed.pid == child.pid()), "{stopped:?}");
    until(|| our_children().is_empty()).await;
}

pub(super) async fn a_stopped_process_hears_a_stop() {
    let processes = forwarding();
    let child = processes.start(&sh("trap 'exit 7' TERM; kill -STOP $$; sleep 1000")).await.unwrap();
    until(|| state(child.pid()).is_some_and(|(state, _)| state == "T")).await;
    let stopped = child.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!((stopped.exit, stopped.killed.len()), (Some(Exit::Code(7)), 0));
}

pub(super) async fn grandchildren_end_with_the_group() {
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

pub(super) async fn what_left_the_group_is_found_and_ended() {
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

pub(super) async fn what_a_crash_leaves_behind_is_found_and_ended() {
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

pub(super) async fn strays_that_hid_are_ended_at_the_end() {
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

pub(super) async fn a_fork_race_is_won() {
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

pub(super) async fn orphans_are_reaped() {
    let processes = forwarding();
    let child = processes.start(&sh("for i in 1 2 3 4 5; do (setsid sh -c 'exit 9' &); done")).await.unwrap();
    assert_eq!(child.exited().await, Exit::Code(0));
    until(|| processes.orphans_reaped() >= 5).await;
    assert_eq!(our_children(), [0; 0], "no zombies");
}

pub(super) async fn a_signal_can_be_for_the_program_alone() {
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

pub(super) async fn children_die_with_their_supervisor() {
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

pub(super) async fn starts_and_waits() {
    let processes = forwarding();
    let child = processes.start(&sh("echo pid $$; trap '' TERM; while :; do sleep 0.01; done")).await.unwrap();
    child.exited().await;
}

pub(super) async fn as_process_one_orphans_are_reaped() {
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
