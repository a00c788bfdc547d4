use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::{Input, Order, clock::World};
use crate::process::Exit;

const GREETER: &str = "[service.a]\ncommand = \"a\"\nport = 5000\nsurge = false\n";

fn greeter(more: &str) -> World {
    World::new(&format!("{GREETER}{more}\n"))
}

/// Starts as told, but does not serve by itself.
fn silent(toml: &str) -> World {
    let mut world = World::new("");
    world.serves = false;
    world.configure(toml);
    world
}

#[test]
fn a_replica_serves_once_it_runs_and_its_checks_pass_and_it_says_so() {
    let mut world = silent(&format!("{GREETER}notify = true\n"));
    assert_eq!(world.state("a/0"), "starting");
    let run = world.run("a/0");
    world.input(Input::Started(run, 42));
    assert_eq!((world.state("a/0").as_str(), world.status("a/0").pid), ("unready", Some(42)));
    world.health("a/0", true);
    assert_eq!(world.state("a/0"), "unready");
    world.input(Input::Ready(run));
    assert_eq!((world.state("a/0").as_str(), world.published("a")), ("serving", vec!["a/0"]));
    assert!(world.supervisor.is_serving());
}

#[test]
fn an_exit_is_followed_by_a_growing_wait_that_serving_for_long_resets() {
    let mut world = greeter("backoff = { jitter = 0.0 }\nhealthy_after = \"10s\"\ncrash_loop.exits = 99");
    for wait in [200, 400, 800] {
        world.exit("a/0", Exit::Code(3));
        assert_eq!((world.state("a/0").as_str(), world.published("a")), ("backoff", vec![]));
        world.pass(Duration::from_millis(wait - 1));
        assert_eq!(world.state("a/0"), "backoff", "{}", world.status("a/0").next);
        world.pass(Duration::from_millis(1));
        assert_eq!(world.state("a/0"), "serving");
    }
    assert_eq!(world.status("a/0").restarts, 3);
    assert_eq!(world.status("a/0").last_exit.as_deref(), Some("exited with code 3"));
    world.seconds(10);
    world.exit("a/0", Exit::Code(3));
    world.pass(Duration::from_millis(200));
    assert_eq!(world.state("a/0"), "serving", "forgotten");
}

#[test]
fn what_an_exit_leaves_behind_is_ended_before_the_next_start() {
    let mut world = greeter("stop_timeout = \"2s\"");
    world.obeys = false;
    world.exit("a/0", Exit::Code(0));
    assert_eq!(world.state("a/0"), "stopping");
    world.seconds(3);
    assert_eq!(world.log, ["+a/0", "~a/0", "!a/0", "+a/0"]);
}

#[test]
fn the_restart_policy_decides_what_follows_an_exit() {
    for (policy, exit, expected) in [
        ("always", Exit::Code(0), "backoff"),
        ("on-failure", Exit::Code(0), "stopped"),
        ("on-failure", Exit::Code(1), "backoff"),
        ("on-failure", Exit::Signal(9), "backoff"),
        ("never", Exit::Code(1), "stopped"),
    ] {
        let mut world = greeter(&format!("restart = \"{policy}\""));
        world.exit("a/0", exit);
        assert_eq!(world.state("a/0"), expected, "{policy} {exit}");
        assert_eq!(world.supervisor.is_finished(), expected == "stopped");
    }
}

#[test]
fn a_crash_loop_is_said_and_goes_on_or_is_given_up() {
    let mut world = greeter("backoff = { jitter = 0.0, max = \"1s\" }\ncrash_loop.exits = 3");
    for _ in 0..2 {
        world.exit("a/0", Exit::Code(1));
        world.seconds(1);
    }
    world.exit("a/0", Exit::Code(1));
    let status = world.status("a/0");
    assert_eq!((status.state.as_str(), status.next.as_str()), ("crash-looping", "starts again in 0.8s"));
    assert_eq!(status.why, "3 failures within 60s, the last: process exited with code 1");
    world.seconds(1);
    assert_eq!((world.state("a/0").as_str(), world.status("a/0").crash_looping), ("serving", true));
    world.seconds(60);
    assert!(!world.status("a/0").crash_looping, "forgotten");

    let mut world = greeter("crash_loop = { exits = 1, give_up = true }");
    world.exit("a/0", Exit::Signal(11));
    world.seconds(100);
    assert_eq!((world.state("a/0").as_str(), world.supervisor.is_finished()), ("crash-looping", true));
    assert_eq!(world.supervisor.ended_with().map(Exit::code), Some(128 + 11));
    world.order(&Order::Start("a".into())).unwrap();
    assert_eq!((world.state("a/0").as_str(), world.status("a/0").crash_looping), ("serving", false));
}

#[test]
fn what_does_not_serve_in_time_is_restarted() {
    let mut world = silent(&format!("{GREETER}start_timeout = \"5s\"\nbackoff.initial = \"1s\"\n"));
    let run = world.run("a/0");
    world.input(Input::Started(run, 1));
    world.health("a/0", false);
    world.seconds(5);
    assert_eq!(world.state("a/0"), "backoff");
    assert_eq!(world.status("a/0").why, "did not serve within 5s (connection refused)");
}

#[test]
fn what_cannot_be_started_waits_like_what_exits() {
    let mut world = silent(GREETER);
    let run = world.run("a/0");
    world.processes.clear();
    world.input(Input::StartFailed(run, "no such file".to_owned()));
    assert_eq!(
        (world.state("a/0").as_str(), world.status("a/0").why.as_str()),
        ("backoff", "cannot be started: no such file")
    );
}

#[test]
fn failed_checks_take_a_replica_out_at_once_and_restart_it_after_a_while() {
    let mut world = greeter("unhealthy_timeout = \"4s\"");
    world.health("a/0", false);
    assert_eq!((world.state("a/0").as_str(), world.published("a")), ("unhealthy", vec![]));
    world.seconds(3);
    world.health("a/0", true);
    assert_eq!(world.state("a/0"), "serving");
    world.health("a/0", false);
    world.obeys = false;
    world.seconds(4);
    assert_eq!(
        (world.state("a/0").as_str(), world.status("a/0").why.as_str()),
        ("stopping", "was unhealthy for 4s (connection refused)")
    );
}

#[test]
fn a_watchdog_that_falls_silent_is_a_hang_and_what_ignores_term_is_killed() {
    let mut world = greeter("watchdog = \"2s\"\nstop_timeout = \"3s\"");
    world.obeys = false;
    world.input(Input::Silent(world.run("a/0")));
    assert_eq!(world.state("a/0"), "stopping");
    assert!(world.has_told("hangs: it has not said WATCHDOG=1 for 2s"), "{:?}", world.notes);
    world.seconds(3);
    assert_eq!(world.log, ["+a/0", "~a/0", "!a/0"]);
    assert!(world.has_told("still there 3s after SIGTERM"), "{:?}", world.notes);
}

#[test]
fn services_start_after_those_they_need_and_stop_before_them() {
    let toml =
        "[service.db]\ncommand = \"db\"\nport = 1\n[service.web]\ncommand = \"web\"\nafter = [\"db\"]\nport = 2\n";
    let mut world = silent(toml);
    assert_eq!((world.log.as_slice(), world.state("web/0").as_str()), (&["+db/0".to_owned()][..], "waiting"));
    world.serves = true;
    let run = world.run("db/0");
    world.input(Input::Started(run, 1));
    world.health("db/0", true);
    assert_eq!(world.state("web/0"), "serving");
    world.input(Input::Shutdown);
    assert_eq!((world.state("web/0").as_str(), world.state("db/0").as_str()), ("draining", "serving"));
    world.seconds(5);
    assert_eq!(world.log, ["+db/0", "+web/0", "~web/0", "~db/0"]);
    assert!(world.supervisor.is_finished() && world.processes.is_empty());
}

#[test]
fn a_service_that_has_done_what_it_was_for_holds_up_nobody() {
    let toml = "[service.job]\ncommand = \"job\"\nrestart = \"on-failure\"\n[service.web]\ncommand = \"web\"\nafter = [\"job\"]\n";
    let mut world = World::new(toml);
    world.exit("job/0", Exit::Code(0));
    world.exit("web/0", Exit::Code(1));
    world.seconds(1);
    assert_eq!((world.state("job/0").as_str(), world.state("web/0").as_str()), ("stopped", "serving"));
    assert!(world.supervisor.is_serving() && !world.supervisor.is_finished());
}

#[test]
fn a_replica_that_waits_says_for_whom() {
    let mut world = World::new("");
    world.serves = false;
    world.configure("[service.a]\ncommand = \"a\"\nafter = [\"b\", \"c\"]\n[service.b]\ncommand = \"b\"\nport = 1\n[service.c]\ncommand = \"c\"\nport = 2\n");
    assert_eq!(world.status("a/0").next, "starts when b and c serve");
    world.input(Input::Started(world.run("b/0"), 1));
    world.health("b/0", true);
    assert_eq!(world.status("a/0").next, "starts when c serves");
}

#[test]
fn a_stop_drains_before_it_terminates() {
    let mut world = greeter("drain_timeout = \"2s\"");
    world.order(&Order::Stop("a".into())).unwrap();
    assert_eq!((world.state("a/0").as_str(), world.published("a")), ("draining", vec![]));
    assert_eq!(world.log, ["+a/0"]);
    world.seconds(2);
    assert_eq!((world.log.len(), world.state("a/0").as_str()), (2, "stopped"));
    assert!(!world.supervisor.is_finished(), "an operator may start it again");
    world.order(&Order::Start("a/0".into())).unwrap();
    assert_eq!(world.state("a/0"), "serving");
}

#[test]
fn a_rolling_restart_takes_one_replica_at_a_time_and_waits_for_each() {
    let mut world = greeter("replicas = 3");
    world.serves = false;
    world.order(&Order::Restart("a".into())).unwrap();
    for number in 0..3 {
        let name = format!("a/{number}");
        assert_eq!(world.state(&name), "draining");
        assert_eq!(world.published("a").len(), 2);
        world.seconds(2);
        let run = world.run(&name);
        world.input(Input::Started(run, 1));
        assert_eq!(world.published("a").len(), 2, "{name} does not serve yet");
        world.health(&name, true);
    }
    assert_eq!(world.published("a").len(), 3);
    assert!(world.has_told("rolling restart is done"));
}

#[test]
fn a_rolling_restart_that_surges_never_has_fewer_replicas() {
    let mut world = World::new("[service.a]\ncommand = \"a\"\nport = 0\n");
    world.order(&Order::Restart("a".into())).unwrap();
    assert_eq!(world.published("a"), ["a/1"], "a/0 went once a/1 served");
    assert_eq!(world.status("a/1").role, "surge");
    world.seconds(1);
    world.seconds(1);
    assert_eq!(world.log, ["+a/0", "+a/1", "~a/0", "+a/0", "~a/1"]);
    assert_eq!(world.published("a"), ["a/0"]);
    assert_eq!(world.supervisor.status(world.now)[0].replicas.len(), 1);
}

#[test]
fn a_rolling_restart_that_a_stop_breaks_off_is_not_done() {
    let mut world = greeter("replicas = 2");
    world.order(&Order::Restart("a".into())).unwrap();
    world.input(Input::Shutdown);
    let status = &world.supervisor.status(world.now)[0];
    let told = "rolling restart broken off: everything is being stopped";
    assert_eq!((status.rolling.as_deref(), status.last_roll.as_deref()), (None, Some(told)));
}

#[test]
fn an_additional_replica_stays_if_the_file_names_more_meanwhile() {
    let service = |replicas: u32| format!("[service.a]\ncommand = \"a\"\nport = 0\nreplicas = {replicas}\n");
    let mut world = World::new(&service(2));
    world.serves = false;
    world.order(&Order::Restart("a".into())).unwrap();
    assert_eq!(world.status("a/2").role, "surge");
    world.configure(&service(3));
    assert_eq!(world.status("a/2").role, "primary");
    world.serves = true;
    world.input(Input::Started(world.run("a/2"), 1));
    world.health("a/2", true);
    world.seconds(10);
    assert_eq!(world.published("a"), ["a/0", "a/1", "a/2"]);
}

#[test]
fn a_file_that_is_mended_during_a_rolling_restart_reaches_the_replica_that_does_not_come_up() {
    for surge in [false, true] {
        let file = |command: &str| {
            format!("[service.a]\ncommand = \"{command}\"\nport = 5000\nreplicas = 2\nsurge = {surge}\n")
        };
        let mut world = World::new(&file("old"));
        world.serves = false;
        world.configure(&file("broken"));
        world.seconds(1);
        world.serves = true;
        world.configure(&file("mended"));
        world.seconds(10);
        assert!(!world.has_told("aborted"), "{:?}", world.notes);
        let commands: Vec<_> = world.processes.values().map(|process| process.command.as_str()).collect();
        assert_eq!((commands, world.published("a")), (vec!["mended"; 2], vec!["a/0", "a/1"]));
    }
}

#[test]
fn a_rolling_restart_aborts_at_a_replica_that_does_not_come_up() {
    let mut world = greeter("replicas = 3");
    world.configure(&format!("{GREETER}replicas = 3\nargs = [\"new\"]\n").replace("\"a\"", "\"b\""));
    assert_eq!(world.state("a/0"), "draining");
    world.serves = false;
    world.seconds(1);
    let run = world.run("a/0");
    world.input(Input::Started(run, 1));
    world.exit("a/0", Exit::Code(2));
    assert!(world.has_told("rolling restart aborted: a/0 did not come up"), "{:?}", world.notes);
    world.serves = true;
    world.seconds(60);
    assert_eq!(world.published("a").len(), 3);
    // The others go on with what they were started by, also when they have to be started again.
    world.exit("a/1", Exit::Code(1));
    world.seconds(1);
    let commands: Vec<_> = world.processes.values().map(|p| (p.replica.as_str(), p.command.as_str())).collect();
    assert_eq!(commands.len(), 3);
    for (replica, command) in commands {
        assert_eq!(command, if replica == "a/0" { "b" } else { "a" }, "{replica}");
    }
}

#[test]
fn a_changed_file_restarts_only_what_it_changes() {
    let other = "[service.b]\ncommand = \"b\"\n[service.c]\ncommand = \"c\"\n";
    let mut world = greeter(other);
    world.configure(&format!(
        "{GREETER}environment = {{ X = \"1\" }}\n[service.b]\ncommand = \"b\"\nstop_timeout = \"1s\"\n"
    ));
    world.seconds(5);
    assert_eq!(world.log[3..], ["~c/0", "~a/0", "+a/0"]);
    assert_eq!(world.supervisor.status(world.now).len(), 2, "c is forgotten");
    world.configure(&format!("{GREETER}environment = {{ X = \"1\" }}\nreplicas = 2\n"));
    assert_eq!(world.published("a"), ["a/0", "a/1"]);
    world.configure(&format!("{GREETER}environment = {{ X = \"1\" }}\n"));
    world.seconds(5);
    assert_eq!(world.published("a"), ["a/0"]);
    assert_eq!(world.supervisor.status(world.now)[0].replicas.len(), 1);
}

#[test]
fn a_standby_is_promoted_when_no_primary_has_served_for_a_while() {
    let mut world =
        greeter("replicas = 2\nstandby = 1\npromote_after = \"3s\"\nbackoff = { initial = \"60s\", max = \"60s\" }");
    assert_eq!(world.published("a"), ["a/0", "a/1", "a/2:1"]);
    world.exit("a/0", Exit::Code(1));
    world.seconds(10);
    assert_eq!(world.published("a"), ["a/1", "a/2:1"], "one primary is left");
    world.exit("a/1", Exit::Code(1));
    world.seconds(2);
    assert_eq!(world.published("a"), ["a/2:1"]);
    world.seconds(1);
    assert_eq!(world.published("a"), ["a/2"]);
    assert!(
        world.has_told("a/2: promoted to primary: no primary has served for 3s; a/0 (backoff"),
        "{:?}",
        world.notes
    );
    world.seconds(100);
    assert_eq!(world.published("a"), ["a/0:1", "a/1", "a/2"], "who returns takes the standby's place");
}

#[test]
fn orders_name_what_they_cannot_find() {
    let mut world = greeter("replicas = 2");
    let told = |world: &mut World, name: &str| world.order(&Order::Stop(name.into())).unwrap_err().to_string();
    assert_eq!(told(&mut world, "b"), "there is no service `b`: did you mean `a`?");
    assert_eq!(told(&mut world, "greeter"), "there is no service `greeter`; there are a");
    assert_eq!(told(&mut world, "a/7"), "`a` has no replica `7`; it has 2, from 0");
    world.input(Input::Shutdown);
    assert_eq!(told(&mut world, "a"), "the supervisor is stopping everything");
}

/// What may happen in one step of a random story.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Exit(usize, u8),
    Health(usize, bool),
    Restart,
    Stop(u32),
    Start,
    Change(u8),
    Obey(bool),
    Serve(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_000_u64).prop_map(Step::Pass),
        3 => (0..8_usize, 0..3_u8).prop_map(|(i, code)| Step::Exit(i, code)),
        3 => (0..8_usize, any::<bool>()).prop_map(|(i, is_healthy)| Step::Health(i, is_healthy)),
        1 => Just(Step::Restart),
        1 => (0..4_u32).prop_map(Step::Stop),
        1 => Just(Step::Start),
        1 => (0..4_u8).prop_map(Step::Change),
        1 => any::<bool>().prop_map(Step::Obey),
        1 => any::<bool>().prop_map(Step::Serve),
    ]
}

fn story(variant: u8) -> String {
    let replicas = 1 + variant % 3;
    let port = if variant == 3 { 0 } else { 5000 };
    format!(
        "[service.a]\ncommand = \"a{variant}\"\nport = {port}\nreplicas = {replicas}\nstandby = 1\nstop_timeout = \"2s\"\n\
         start_timeout = \"3s\"\nunhealthy_timeout = \"2s\"\n[service.b]\ncommand = \"b\"\nafter = [\"a\"]\nreplicas = 2\n"
    )
}

fn take(world: &mut World, step: &Step) {
    let nth = |world: &World, i: usize| world.processes.values().nth(i).map(|process| process.replica.clone());
    match step {
        Step::Pass(millis) => world.pass(Duration::from_millis(*millis)),
        Step::Exit(i, code) => {
            if let Some(replica) = nth(world, *i) {
                world.exit(&replica, Exit::Code(*code));
            }
        }
        Step::Health(i, is_healthy) => {
            if let Some(replica) = nth(world, *i) {
                let run = world.run(&replica);
                world.input(Input::Started(run, 1));
                world.health(&replica, *is_healthy);
            }
        }
        Step::Restart => drop(world.order(&Order::Restart("a".into()))),
        Step::Stop(number) => drop(world.order(&Order::Stop(format!("a/{number}")))),
        Step::Start => drop(world.order(&Order::Start("a".into()))),
        Step::Change(variant) => world.configure(&story(*variant)),
        Step::Obey(obeys) => world.obeys = *obeys,
        Step::Serve(serves) => world.serves = *serves,
    }
}

proptest! {
    /// No replica is ever started while it runs (the world asserts it), nothing takes calls without a process, and in
    /// the end everything is stopped, whatever happened before.
    #[test]
    fn whatever_happens_everything_stops_in_the_end(steps in vec(step(), 1..60)) {
        let mut world = World::new(&story(0));
        for step in &steps {
            take(&mut world, step);
        }
        world.input(Input::Shutdown);
        world.seconds(60);
        prop_assert!(world.processes.is_empty(), "{:?}", world.log);
        prop_assert!(world.supervisor.is_finished());
        prop_assert_eq!(world.published("a"), Vec::<&str>::new());
        prop_assert_eq!(world.supervisor.next_timeout(), None);
    }

    /// Left alone, with processes that serve, everything comes up again.
    #[test]
    fn whatever_happens_everything_serves_again_once_processes_do(steps in vec(step(), 1..60)) {
        let mut world = World::new(&story(0));
        for step in &steps {
            take(&mut world, step);
        }
        (world.obeys, world.serves) = (true, true);
        // Those that were started while nothing served are restarted at their time-outs.
        world.order(&Order::Start("a".into())).unwrap();
        world.seconds(300);
        world.order(&Order::Start("a".into())).unwrap();
        world.seconds(60);
        prop_assert!(world.supervisor.is_serving(), "{:?} {:?}", world.log, world.supervisor.status(world.now));
    }

    /// During a rolling restart, at most `max_unavailable` replicas that served are out at once.
    #[test]
    fn a_rolling_restart_keeps_the_others_serving(
        replicas in 1..6_usize, max in 1..4_usize, drain in 0..3_u64, passes in vec(1..1_500_u64, 1..40),
    ) {
        let more = format!("replicas = {replicas}\nmax_unavailable = {max}\ndrain_timeout = \"{drain}s\"");
        let mut world = greeter(&more);
        world.order(&Order::Restart("a".into())).unwrap();
        for millis in passes {
            prop_assert!(world.published("a").len() + max >= replicas);
            world.pass(Duration::from_millis(millis));
        }
        world.seconds(60);
        prop_assert_eq!(world.published("a").len(), replicas);
        prop_assert_eq!(world.log.len(), replicas * 3);
    }
}
