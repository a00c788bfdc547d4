use super::{
    Failover, LeastRequest, Maglev, OutlierDetection, PanicThreshold, PeakEwma, PickFirst, Policies, Priority, Random,
    RandomSubsetting, RingHash, RoundRobin, WeightedRoundRobin, WeightedTarget, ZoneAware,
};

impl Policies {
    /// Every policy of this crate.
    pub fn standard() -> Self {
        Self::default()
            .with(PickFirst)
            .with(RoundRobin)
            .with(Random)
            .with(LeastRequest)
            .with(WeightedRoundRobin)
            .with(PeakEwma)
            .with(OutlierDetection)
            .with(PanicThreshold)
            .with(Priority)
            .with(Failover)
            .with(WeightedTarget)
            .with(RandomSubsetting)
            .with(ZoneAware)
            .with(RingHash::default())
            .with(Maglev)
    }
}
