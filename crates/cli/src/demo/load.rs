use std::time::Duration;

use evenkeel_balance::Entropy;
use evenkeel_proto::demo::{EchoReply, EchoRequest};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout_at},
};
use tonic::{Response, Status};

use super::{
    record::{Call, Face, Run},
    script::BACKENDS,
};

/// How long after the end of the run an answer is still waited for.
const GRACE: Duration = Duration::from_secs(10);

/// How long a backend takes for a call: one of these, each as often as the others.
const DELAYS_MS: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

/// Calls through one face.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) face: Face,
    /// Calls a second.
    pub(super) rate: f64,
    pub(super) seed: u64,
}

impl Load {
    /// Makes calls until the run is over and waits for the last answer.
    ///
    /// The load is open: calls start at the moments of a Poisson process, whatever becomes of those before. A slow
    /// backend therefore cannot slow its own measurement.
    pub(super) async fn drive<C, F>(self, run: &Run, call: C)
    where
        C: Fn(EchoRequest) -> F,
        F: Future<Output = Result<Response<EchoReply>, Status>> + Send + 'static,
    {
        let mut entropy = Entropy::new(self.seed);
        let mut calls = JoinSet::new();
        let duration = run.record().plan.duration;
        let mut at = Duration::ZERO;
        loop {
            at += Duration::from_secs_f64(-(1.0 - entropy.unit()).ln() / self.rate);
            if at >= duration {
                break;
            }
            sleep_until(run.instant(at)).await;
            let delay_ms = DELAYS_MS[entropy.below(DELAYS_MS.len())];
            calls.spawn(one(self.face, run.clone(), call(EchoRequest { delay_ms, ..EchoRequest::default() })));
            while calls.try_join_next().is_some() {}
        }
        calls.join_all().await;
    }
}

async fn one(face: Face, run: Run, answer: impl Future<Output = Result<Response<EchoReply>, Status>>) {
    let start = run.now();
    let deadline = run.instant(run.record().plan.duration + GRACE);
    let outcome = match timeout_at(deadline, answer).await {
        Ok(Ok(reply)) => backend_of(&reply.into_inner()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {} s of the end", GRACE.as_secs())),
    };
    let end = run.now();
    run.record().add(Call { face, start, end, outcome });
}

fn backend_of(reply: &EchoReply) -> Result<usize, String> {
    let backend = BACKENDS.iter().position(|name| *name == reply.backend);
    backend.ok_or_else(|| format!("answered by a stranger: {:?}", reply.backend))
}
