//! What the fuzz targets `connection` and `relay` do, for a few random inputs and for the seeds of their corpora.
//!
//! The targets include these files by path, so that what a fuzzer finds can be run here, and the other way round.

#![allow(missing_docs, reason = "tests are not documentation")]

mod connection;
mod relay;
mod script;
mod seeds;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../relay/world.rs"]
mod world;

use proptest::prelude::*;

/// Bytes as a fuzzer would try them: small numbers are operations and places, so they come more often than others.
fn scripts() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..24, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_connection_withstands_whatever_comes(script in scripts()) {
        connection::run(&script);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_relay_withstands_whatever_comes(script in scripts()) {
        relay::run(&script);
    }
}
