//! One HTTP/2 connection of either role: arbitrary bytes from its peer, cut anywhere, and arbitrary acts of its owner.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/relay/tests/fuzzing/connection.rs"]
mod connection;
#[path = "../../crates/relay/tests/fuzzing/script.rs"]
mod script;

fuzz_target!(|data: &[u8]| {
    connection::run(data);
});
