//! Generated protobuf code that Evenkeel's crates share.
//!
//! Each module is a protobuf package, or two that belong together: its messages, and a client and a server for each of its services. The sources
//! are in `protos/`; the code is checked in, so that building needs no protobuf compiler. After an edit of a `.proto`:
//!
//! ```text
//! EVENKEEL_REGENERATE=1 cargo test -p evenkeel-proto
//! ```
//!
//! The clients run over any [`tonic::client::GrpcService`]; tonic's own transport is not compiled in.

mod brief;

pub use brief::BriefCodec;

/// The descriptors of `grpc.health.v1`, an encoded `google.protobuf.FileDescriptorSet`, for servers' reflection.
pub const HEALTH_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/grpc.health.v1.binpb");

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
    /// `grpc.channelz.v1`: the channels, servers and sockets of a process (gRFC A14).
    channelz = "grpc.channelz.v1"
}

/// `xds.data.orca.v3` and `xds.service.orca.v3`: what a server says of its load (ORCA, gRFC A51).
pub mod orca {
    pub use crate::xds::{data::orca::v3::*, service::orca::v3::*};
}

/// Nested as the packages are: the code of one names the other's by that path.
mod xds {
    pub(crate) mod data {
        pub(crate) mod orca {
            generated! {
                /// The report.
                v3 = "xds.data.orca.v3"
            }
        }
    }
    pub(crate) mod service {
        pub(crate) mod orca {
            generated! {
                /// The service that streams reports.
                v3 = "xds.service.orca.v3"
            }
        }
    }
}

generated! {
    /// `evenkeel.demo.v1`: the echo service of the demonstration, tests and benchmarks.
    demo = "evenkeel.demo.v1"
}
