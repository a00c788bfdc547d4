use super::{LeastRequest, PickFirst, Policies, Random, RoundRobin};

impl Policies {
    /// Every policy of this crate.
    pub fn standard() -> Self {
        Self::default().with(PickFirst).with(RoundRobin).with(Random).with(LeastRequest)
    }
}
