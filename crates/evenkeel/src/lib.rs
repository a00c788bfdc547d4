//! Keeps gRPC services available and steady.
