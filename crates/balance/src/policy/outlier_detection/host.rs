use super::{Outlier, OutlierDetectionConfig, listed, tally::Calls};
use crate::{Address, Time, policy::Context};

/// An endpoint, how its calls went of late, and whether it is out.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Calls that finished in the last full interval.
    pub(super) recent: Calls,
    pub(super) ejection: Option<Ejection>,
    /// Ejections that have not been forgiven yet.
    pub(super) multiplier: u32,
}

#[derive(Debug)]
pub(super) struct Ejection {
    pub(super) at: Time,
    /// Until when, and why.
    pub(super) why: String,
}

impl Host {
    /// Takes the endpoint out, or, if it is out already and still fails calls, out for longer.
    pub(super) fn eject(&mut self, outlier: &Outlier, config: &OutlierDetectionConfig, ctx: &mut Context<'_>) {
        let earlier = self.ejection.take();
        self.multiplier = self.multiplier.saturating_add(1);
        let until = ctx.now() + config.ejection_time(self.multiplier);
        let why = format!("ejected until {until} as an outlier: {}", outlier.why);
        ctx.note(format!("outlier detection: {} is {why}", listed(&outlier.addresses)));
        for address in &outlier.addresses {
            ctx.eject(address, why.clone());
            if earlier.is_some() {
                ctx.restore(address);
            }
        }
        self.ejection = Some(Ejection { at: ctx.now(), why });
    }

    /// Lets the endpoint return if it is out.
    pub(super) fn restore(&mut self, addresses: &[Address], ctx: &mut Context<'_>) {
        if self.ejection.take().is_some() {
            for address in addresses {
                ctx.restore(address);
            }
        }
    }
}
