//! A service config comes from a DNS record or a file: whatever it holds, it is accepted or refused.
#![no_main]

use evenkeel_balance::{Balancer, Policies, ServiceConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &str| {
    if let Ok(config) = json.parse::<ServiceConfig>() {
        let _ = config.method("/a.B/C");
        let policy = config.load_balancing.clone().unwrap_or_default();
        let _ = Balancer::new(Policies::standard(), &policy, Default::default(), 1);
    }
});
