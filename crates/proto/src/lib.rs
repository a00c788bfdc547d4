//! Generated protobuf code that Evenkeel's crates share.
//!
//! Each module is one protobuf package: its messages, and a client and a server for each of its services. The sources
//! are in `protos/`; the code is checked in, so that building needs no protobuf compiler. After an edit of a `.proto`:
//!
//! ```text
//! EVENKEEL_REGENERATE=1 cargo test -p evenkeel-proto
//! ```
//!
//! The clients run over any [`tonic::client::GrpcService`]; tonic's own transport is not compiled in.

macro_rules! generated {
    ($(#[$doc:meta])* $module:ident = $file:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated: the generator decides")]
        #[allow(clippy::all, clippy::pedantic, reason = "generated: the generator decides")]
        pub mod $module {
            include!(concat!("generated/", $file, ".rs"));
        }
    };
}

generated! {
    /// `grpc.health.v1`: whether a server can take calls (gRFCs A17 and A90).
    health = "grpc.health.v1"
}

generated! {
    /// `evenkeel.demo.v1`: the echo service of the demonstration, tests and benchmarks.
    demo = "evenkeel.demo.v1"
}
