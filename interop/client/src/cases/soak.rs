//! Large unary calls one after the other, each within a second: ten, as gRPC's own clients make by default.

use std::time::{Duration, Instant};

use super::{Client, Server, unary};
use crate::failure::{Outcome, unexpected};

const ITERATIONS: usize = 10;
const SLOWEST: Duration = Duration::from_secs(1);

/// All over one channel.
pub(super) async fn calls(client: &mut Client) -> Outcome {
    for _ in 0..ITERATIONS {
        timed(client).await?;
    }
    Ok(())
}

/// Each over a channel of its own.
pub(super) async fn channels(server: &Server) -> Outcome {
    for _ in 0..ITERATIONS {
        timed(&mut Client::new(server.channel()?)).await?;
    }
    Ok(())
}

async fn timed(client: &mut Client) -> Outcome {
    let begun = Instant::now();
    unary::large(client).await?;
    let took = begun.elapsed();
    if took > SLOWEST {
        return Err(unexpected("a call's time", &took, &SLOWEST));
    }
    Ok(())
}
