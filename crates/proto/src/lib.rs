//! Generated protobuf code that Evenkeel's crates share.
