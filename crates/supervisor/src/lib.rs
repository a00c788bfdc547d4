//! Runs services as child processes: starts, watches, restarts and stops them.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "evenkeel-supervisor runs on Linux alone: it finds every process of a service through /proc, \
     as its subreaper, which other systems do not have"
);

pub mod process;
