//! The grpc.health.v1 service: reporter, Check, Watch, List and drain.
