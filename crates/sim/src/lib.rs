//! A virtual-time driver of Evenkeel's balancing core.
