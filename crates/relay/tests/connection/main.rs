//! HTTP/2 connections: two of them over an in-memory link in virtual time, and single ones against raw frames.

#![allow(
    clippy::cast_possible_truncation,
    clippy::field_reassign_with_default,
    clippy::large_stack_arrays,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "test data are of known sizes, and the settings are not exhaustive"
)]

mod calls;
mod errors;
mod floods;
mod flow;
mod goodbye;
mod pair;
mod random;
mod raw;
mod split;
