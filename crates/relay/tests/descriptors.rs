//! What a worker does when the process has no file descriptors left. In a process of its own, since it takes them all.

#![cfg(target_os = "linux")]

#[path = "driver/running.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod running;
#[path = "driver/toy.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod toy;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::running::Running;

#[test]
fn clients_wait_until_there_are_descriptors_again() {
    let running = Running::start(toy::echo());
    let before = getrlimit(Resource::Nofile);
    let highest = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().and_then(|number| number.parse::<u64>().ok()));
    // Room for what is open and for the client's own end, so that the worker has none for its end.
    let room = highest.max().unwrap();
    let _fill: Vec<_> =
        std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).take(usize::try_from(room).unwrap()).collect();
    setrlimit(Resource::Nofile, Rlimit { current: Some(first_free() + 1), ..before }).unwrap();

    let mut client = running.client();
    client.say("x");
    let errors = || running.handle.counters().accept_errors.get();
    while errors() == 0 {
        std::thread::yield_now();
    }
    let turns = running.handle.counters().turns.get();
    while errors() < 3 {
        std::thread::yield_now();
    }
    assert!(running.handle.counters().turns.get() - turns <= 10, "it pauses instead of trying over and over");

    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(client.hear(1), b"x");
}

/// The number that the next file descriptor gets.
fn first_free() -> u64 {
    use std::os::fd::AsRawFd;
    std::fs::File::open("/dev/null").unwrap().as_raw_fd().try_into().unwrap()
}
