//! The choices of a TXT record come from whoever answers for a name: for each client they are a config or refused.
#![no_main]

use evenkeel_naming::ConfigClient;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: &str| {
    let client = |percentile| ConfigClient { percentile, hostname: "a".to_owned() };
    let chosen = [0, 50, 99].map(|percentile| client(percentile).choose(choices));
    // Whether the record is well-formed does not depend on who reads it.
    assert!(chosen.iter().all(|config| config.is_ok() == chosen[0].is_ok()));
});
