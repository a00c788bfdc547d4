use super::{LeastRequest, OutlierDetection, PanicThreshold, PickFirst, Policies, Random, RoundRobin};

impl Policies {
    /// Every policy of this crate.
    pub fn standard() -> Self {
        let petioles = Self::default().with(PickFirst).with(RoundRobin).with(Random).with(LeastRequest);
        petioles.with(OutlierDetection).with(PanicThreshold)
    }
}
