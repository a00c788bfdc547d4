//! Evenkeel's balancing core: policies, pickers and connectivity as pure state machines.
