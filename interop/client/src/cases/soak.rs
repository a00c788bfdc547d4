//! Large unary calls one after the other, for as long as one likes, each within a time.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::{Client, Server, unary};
use crate::failure::{Failure, Outcome, unexpected};

/// How long to soak, and what is still well; the names and defaults are those of gRPC's own clients.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Soak {
    /// Calls of `rpc_soak` and `channel_soak`.
    #[arg(long = "soak_iterations", default_value_t = 10)]
    iterations: u32,
    /// How many of them may fail or take too long.
    #[arg(long = "soak_max_failures", default_value_t = 0)]
    max_failures: u32,
    /// The longest that one of them may take.
    #[arg(long = "soak_per_iteration_max_acceptable_latency_ms", default_value_t = 1000)]
    per_iteration_max_acceptable_latency_ms: u64,
    /// The longest that all of them may take.
    #[arg(long = "soak_overall_timeout_seconds", default_value_t = 10)]
    overall_timeout_seconds: u64,
    /// The shortest time from the start of one to the start of the next.
    #[arg(long = "soak_min_time_ms_between_rpcs", default_value_t = 0)]
    min_time_ms_between_rpcs: u64,
}

impl Soak {
    /// How long all may take.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_secs(self.overall_timeout_seconds)
    }

    /// Makes the calls, each over the client that `client` hands out, and judges them.
    async fn run(&self, client: impl FnMut() -> Result<Client, Failure>) -> Outcome {
        let mut tally = Tally::default();
        match timeout(self.longest(), self.make(client, &mut tally)).await {
            Ok(made) => made?,
            Err(_) => return Err(unexpected("calls made in time", &tally.made, &self.iterations)),
        }
        tally.judge(self.max_failures)
    }

    async fn make(&self, mut client: impl FnMut() -> Result<Client, Failure>, tally: &mut Tally) -> Outcome {
        for _ in 0..self.iterations {
            let next = Instant::now() + Duration::from_millis(self.min_time_ms_between_rpcs);
            tally.count(self.call(&mut client()?).await);
            sleep_until(next).await;
        }
        Ok(())
    }

    async fn call(&self, client: &mut Client) -> Outcome {
        let begun = Instant::now();
        unary::large(client).await?;
        let (took, slowest) = (begun.elapsed(), Duration::from_millis(self.per_iteration_max_acceptable_latency_ms));
        if took > slowest { Err(unexpected("a call's time", &took, &slowest)) } else { Ok(()) }
    }
}

/// All over one channel.
pub(super) async fn calls(soak: &Soak, client: &Client) -> Outcome {
    soak.run(|| Ok(client.clone())).await
}

/// Each over a channel of its own.
pub(super) async fn channels(soak: &Soak, server: &Server) -> Outcome {
    soak.run(|| Ok(Client::new(server.channel()?))).await
}

/// What became of the calls.
#[derive(Debug, Default)]
struct Tally {
    made: u32,
    failed: u32,
    last: Option<Failure>,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        self.made += 1;
        if let Err(failure) = outcome {
            self.failed += 1;
            self.last = Some(failure);
        }
    }

    fn judge(self, allowed: u32) -> Outcome {
        match self.last {
            Some(last) if self.failed > allowed => {
                Err(Failure::Soak { failed: self.failed, allowed, last: last.into() })
            }
            _ => Ok(()),
        }
    }
}
