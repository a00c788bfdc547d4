//! `--wait`: asks until a server is SERVING.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Named,
    probe::{Answer, Plan},
    report::Report,
};

/// Pauses between questions: short at first, since a server that has just been started is about to serve.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The first answer that says SERVING, or the last one in time. The first question is always asked to its end.
pub(super) async fn until_serving(plan: &Plan, named: &Named, report: Report, until: Instant) -> Answer {
    let mut answer = plan.ask(&named.target).await;
    let mut pause = FIRST_PAUSE;
    while !matches!(&answer.outcome, Ok(health) if health.is_serving()) && Instant::now() + pause < until {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        // A question that is cut short tells less than the answer before it.
        let Ok(next) = timeout_at(until, plan.ask(&named.target)).await else { break };
        if said(&next) != said(&answer) {
            report.aside(&named.text, &said(&next));
        }
        answer = next;
    }
    answer
}

fn said(answer: &Answer) -> String {
    match &answer.outcome {
        Ok(health) => health.to_string(),
        Err(failure) => failure.message.clone(),
    }
}
