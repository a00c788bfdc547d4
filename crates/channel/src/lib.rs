//! A load-balancing gRPC channel for tonic's generated clients.
