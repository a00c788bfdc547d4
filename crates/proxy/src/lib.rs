//! A gRPC load-balancing proxy over Evenkeel's channel.
