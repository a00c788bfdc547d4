//! A relay between simulated clients and backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod calls;
mod faults;
mod wire;
mod world;
