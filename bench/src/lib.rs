//! Measures Evenkeel's channel and its peers side by side. See README.md.

mod backend;
mod clients;
mod command;
mod core;
mod figures;
mod load;
mod peers;
mod picks;
mod updates;

pub use command::run;
pub use figures::Counted;
