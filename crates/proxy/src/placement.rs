use std::{sync::Arc, time::Duration};

use evenkeel_channel::{
    self as channel, LOAD_REPORT_TRAILER, PlacedCall, Placer,
    balance::{
        Address, Code, ConnectionId, HedgingPolicy, Input, KeepaliveSettings, Load, LoadReport, Metadata, MethodConfig,
        Pick, ProgressSettings, RetryThrottle, Time,
    },
    read_load_report,
};
use evenkeel_relay::{
    fields::Fields,
    relay::{AttemptCost, Placement, Repeats},
};

/// Places a worker's calls by the channel's newest picker.
#[derive(Debug)]
pub(crate) struct Placing(pub(crate) Placer);

/// A head as policies read it.
#[derive(Debug)]
struct Head<'a>(&'a Fields);

impl Metadata for Head<'_> {
    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        let named = self.0.iter().filter(|field| field.name == name.as_bytes());
        named.for_each(|field| visit(field.value));
    }
}

impl Placement for Placing {
    type Method = PlacedCall;

    fn version(&self) -> u64 {
        self.0.version()
    }

    fn connections(&self, each: &mut dyn FnMut(ConnectionId, &Address, &Arc<Load>)) {
        self.0.connections(each);
    }

    fn pick(&mut self, now: Time, path: &str, head: &Fields) -> Pick {
        self.0.pick(now, path, &Head(head))
    }

    fn begin(&mut self, now: Time, path: &str) -> PlacedCall {
        self.0.begin(now, path)
    }

    fn config<'m>(&self, method: &'m PlacedCall) -> &'m MethodConfig {
        method.config()
    }

    fn throttle(&self) -> Option<&Arc<RetryThrottle>> {
        self.0.throttle()
    }

    fn entropy(&mut self) -> u64 {
        self.0.entropy()
    }

    fn hedging_delay(&mut self, method: &PlacedCall, policy: &HedgingPolicy) -> Duration {
        method.hedging_delay(policy)
    }

    fn spend_hedge(&mut self, method: &PlacedCall, policy: &HedgingPolicy) -> bool {
        method.spend_hedge(policy)
    }

    fn note_latency(&mut self, method: &PlacedCall, latency: Duration) {
        method.note_latency(latency);
    }

    fn attempt_started(&mut self, method: &PlacedCall) {
        method.attempt_started();
    }

    fn attempt_ended(&mut self, method: &PlacedCall, code: Code, cost: &AttemptCost) {
        let AttemptCost { duration, sent, received } = *cost;
        method.attempt_ended(code, &channel::AttemptCost { duration, sent, received });
    }

    fn ended(&mut self, method: PlacedCall, code: Code, duration: Duration, repeats: &Repeats) {
        let Repeats { retries, transparent, hedges, delay } = *repeats;
        method.ended(code, duration, &channel::Repeats { retries, transparent, hedges, delay });
    }

    fn load_report(&self, trailers: &Fields) -> Option<Arc<LoadReport>> {
        read_load_report(trailers.value(LOAD_REPORT_TRAILER.as_bytes())?).map(Arc::new)
    }

    fn tell(&mut self, input: Input) {
        self.0.tell(input);
    }

    fn line(&self) -> (ProgressSettings, KeepaliveSettings) {
        self.0.line()
    }
}
