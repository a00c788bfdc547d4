//! What the interop client and server share: the messages of gRPC's interop test service, its client and its server.

#[allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated: the generator decides")]
#[allow(clippy::all, clippy::pedantic, reason = "generated: the generator decides")]
pub mod proto {
    include!("generated/grpc.testing.rs");
}
