//! Measures Evenkeel's channel and its peers side by side. See README.md.

mod backend;
mod clients;
mod command;
mod core;
mod load;
mod peers;
mod picks;
mod updates;

pub use command::{Counted, run};
