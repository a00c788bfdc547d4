//! A whole relay between clients and backends that do anything at any time: once all are gone, nothing is left over.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/relay/tests/fuzzing/relay.rs"]
mod relay;
#[path = "../../crates/relay/tests/fuzzing/script.rs"]
mod script;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../crates/relay/tests/relay/world.rs"]
mod world;

fuzz_target!(|data: &[u8]| {
    relay::run(data);
});
