//! What touches the operating system: child processes, from their start to the last process of them.
//!
//! [`Processes`] starts a [`Command`] and gives back a [`Child`], and it alone waits for children: **no other part of a
//! program may start processes beside it**, since their exits would be taken from them. Between fork and exec stands the
//! [`launcher`], our own program started again, which the program's `main` has to call.
//!
//! | piece | is about |
//! |---|---|
//! | [`Command`], [`Limit`] | what to start, and how |
//! | [`Processes`], [`Child`], [`Exit`] | start, signal, exit, stop |
//! | [`Output`], [`Format`] | what children write |
//! | [`Systemd`] | what we tell systemd |
//! | [`Notify`], [`Notices`] | what children tell us, in the same words |
//! | [`Facts`] | what a child uses |
//! | [`Remain`] | processes that a child has left behind |
//! | [`signal`] | names of signals, and which ones are passed on |

mod account;
mod child;
mod command;
mod exit;
mod facts;
pub mod launcher;
mod marker;
mod notify;
mod output;
mod processes;
mod procfs;
mod reaper;
mod remains;
pub mod signal;

pub use self::account::AccountError;
pub use self::child::{Child, Stopped};
pub use self::command::{Command, Limit, Resource};
pub use self::exit::Exit;
pub use self::facts::Facts;
pub use self::launcher::Step;
pub use self::marker::{MARKER_VARIABLE, Marker};
pub use self::notify::{Notices, Notify, Systemd};
pub use self::output::{Format, Line, Output, Stream};
pub use self::processes::{Processes, StartError};
pub use self::reaper::ProcessesError;
pub use self::remains::Remain;
pub use self::signal::Signal;
