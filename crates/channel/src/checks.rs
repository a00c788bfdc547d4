//! Active checks: one task an endpoint, which keeps a prober, asks when the core says so, and tells it what it hears.

use std::collections::BTreeMap;

use evenkeel_balance::{Address, CheckFailure, CheckNews, CheckOutcome, FailureKind, Input, SubchannelId};
use evenkeel_checker::{News, Probe, ProbeError, Prober};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender, WeakUnboundedSender},
    task::AbortHandle,
    time::Instant,
};

use crate::message::Message;

/// The probers of a channel, by whose checks they serve.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    tasks: BTreeMap<SubchannelId, Task>,
}

#[derive(Debug)]
struct Task {
    deadlines: UnboundedSender<Instant>,
    handle: AbortHandle,
}

impl Checks {
    /// Probes `address` once, by `deadline`.
    pub(crate) fn probe(
        &mut self,
        probe: &Probe,
        id: SubchannelId,
        address: Address,
        deadline: Instant,
        driver: &WeakUnboundedSender<Message>,
    ) {
        let task = self.tasks.entry(id).or_insert_with(|| {
            let (sender, deadlines) = mpsc::unbounded_channel();
            let work = run(id, probe.at(address), deadlines, driver.clone());
            Task { deadlines: sender, handle: tokio::spawn(work).abort_handle() }
        });
        // It ends only where the driver does.
        let _ = task.deadlines.send(deadline);
    }

    /// Ends what serves the checks of `id`, its connection included.
    pub(crate) fn end(&mut self, id: SubchannelId) {
        if let Some(task) = self.tasks.remove(&id) {
            task.handle.abort();
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.handle.abort();
        }
    }
}

async fn run(
    id: SubchannelId,
    mut prober: Result<Prober, ProbeError>,
    mut deadlines: UnboundedReceiver<Instant>,
    driver: WeakUnboundedSender<Message>,
) {
    loop {
        let news = tokio::select! {
            // The core's questions first: no peer can talk so much that it is not probed.
            biased;
            deadline = deadlines.recv() => match deadline {
                Some(deadline) => CheckNews::Ended(probe(&mut prober, deadline).await),
                None => return,
            },
            news = hear(&mut prober) => match news {
                News::Said(statement) => CheckNews::Said(statement),
                News::Lost => CheckNews::Lost,
            },
        };
        let Some(driver) = driver.upgrade() else { return };
        let _ = driver.send(Message::Input(Input::Checked(id, news)));
    }
}

/// What cannot be asked of this address at all (an authority that it gives and HTTP forbids) is a failure of each probe.
async fn probe(prober: &mut Result<Prober, ProbeError>, deadline: Instant) -> CheckOutcome {
    match prober {
        Ok(prober) => prober.probe(deadline).await,
        Err(error) => CheckOutcome::Failed(CheckFailure::new(FailureKind::Unreachable, error.to_string())),
    }
}

async fn hear(prober: &mut Result<Prober, ProbeError>) -> News {
    match prober {
        Ok(prober) => prober.news().await,
        Err(_) => std::future::pending().await,
    }
}
