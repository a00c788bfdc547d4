use std::sync::Arc;

use evenkeel_balance::{Address, SubchannelReport};
use evenkeel_channel::Report;
use tokio::sync::watch;

use super::{
    narrate::Narrator,
    record::{Face, Run},
    rotation::{Sight, Transition},
};

/// Writes down every change in the reports of a face's channel, for as long as there is a channel.
pub(super) async fn follow(face: Face, mut reports: watch::Receiver<Arc<Report>>, run: Run, narrator: Narrator) {
    loop {
        let report = Arc::clone(&reports.borrow_and_update());
        let seen = see(face, &report.endpoints, &run);
        for transition in seen {
            narrator.transition(face, &transition);
        }
        if reports.changed().await.is_err() {
            return;
        }
    }
}

fn see(face: Face, endpoints: &[SubchannelReport], run: &Run) -> Vec<Transition> {
    let now = run.now();
    let mut record = run.record();
    let mut news = Vec::new();
    for endpoint in endpoints {
        let backend = record.addresses.iter().position(|&address| endpoint.address == Address::Tcp(address));
        let Some(backend) = backend else { continue };
        let sight = Sight {
            state: endpoint.state.service,
            since: endpoint.state.since,
            reason: endpoint.state.reason.clone(),
            load: Arc::clone(&endpoint.load),
        };
        news.extend(record.rotation_mut(face).see(now, backend, sight));
    }
    news
}
