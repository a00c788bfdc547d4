//! What a worker does when the process has no file descriptors left. In a process of its own, since it takes them all.

#![cfg(target_os = "linux")]

#[path = "driver/running.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod running;
#[path = "driver/toy.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod toy;

use std::{fs::File, iter, os::fd::AsRawFd, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::running::Running;

#[test]
fn clients_wait_until_there_are_descriptors_again() {
    let running = Running::start(toy::echo());
    let before = getrlimit(Resource::Nofile);
    // Room for the client's own end alone, so that the worker has none for its end.
    let next = File::open("/dev/null").unwrap().as_raw_fd().try_into().unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), ..before }).unwrap();
    let mut fillers: Vec<_> = iter::from_fn(|| File::open("/dev/null").ok()).collect();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + 1), ..before }).unwrap();

    let mut client = running.client();
    client.say("x");
    let errors = || running.handle.counters().accept_errors.get();
    let until = |count| iter::repeat_with(thread::yield_now).take_while(|()| errors() < count).for_each(drop);
    until(1);
    let turns = running.handle.counters().turns.get();
    until(3);
    assert!(running.handle.counters().turns.get() - turns <= 10, "it pauses instead of trying over and over");

    fillers.clear();
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(client.hear(1), b"x");
}
