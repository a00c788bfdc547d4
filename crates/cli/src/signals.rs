use std::io;

use evenkeel_supervisor::process::{Signal, signal::FORWARDED};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Done at the first SIGTERM or SIGINT. Listens from the moment it is called, not from the first poll.
pub(crate) fn terminated() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Every signal that means something to a supervisor, in order. Listens from the moment it is called.
pub(crate) fn all() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let own = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
    for which in own.into_iter().chain(FORWARDED) {
        let mut arriving = signal(SignalKind::from_raw(which.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move { while arriving.recv().await.is_some() && sender.send(which).is_ok() {} });
    }
    Ok(receiver)
}
