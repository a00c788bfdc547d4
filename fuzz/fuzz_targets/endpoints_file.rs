//! The document of a `file:` target: whatever it holds, it is a whole list or an error with a place.
#![no_main]

use std::collections::BTreeSet;

use evenkeel_naming::Resolution;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| match Resolution::from_json(json) {
    Ok(resolution) => {
        assert!(resolution.endpoints.iter().all(|endpoint| endpoint.weight > 0 && !endpoint.addresses.is_empty()));
        let distinct: BTreeSet<_> = resolution.endpoints.iter().map(|endpoint| &endpoint.addresses).collect();
        assert_eq!(distinct.len(), resolution.endpoints.len());
    }
    Err(error) => assert!(error.message.contains("line")),
});
