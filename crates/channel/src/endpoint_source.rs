use evenkeel_naming::{Options, Ranked, Resolver, Resolving, Target};

/// Where a channel's endpoints come from.
pub(crate) enum EndpointSource {
    /// A target and its standby targets, by rank, for which there is a new resolver whenever one is wanted.
    Targets(Vec<Target>, Box<Options>),
    /// A resolver of the caller's own. There is only one, so that it runs on once it has begun.
    Own(Option<Box<dyn Resolver>>),
}

impl EndpointSource {
    /// Starts a resolver; `None` where the only one has been started.
    pub(crate) fn start(&mut self) -> Option<Resolving> {
        match self {
            Self::Targets(targets, options) => Some(evenkeel_naming::start(resolver(targets, options))),
            Self::Own(resolver) => resolver.take().map(evenkeel_naming::start),
        }
    }

    /// Whether a resolver that is stopped can be replaced.
    pub(crate) fn can_restart(&self) -> bool {
        matches!(self, Self::Targets(..))
    }
}

fn resolver(targets: &[Target], options: &Options) -> Box<dyn Resolver> {
    match targets {
        [only] => only.resolver(options),
        [first, standby @ ..] => ranked(first.resolver(options), standby, options),
        [] => Box::new(Ranked::new([])),
    }
}

/// The endpoints of `first`, and those of `standby` in reserve.
pub(crate) fn ranked(first: Box<dyn Resolver>, standby: &[Target], options: &Options) -> Box<dyn Resolver> {
    // The service config is that of the first.
    let mut options = options.clone();
    options.service_config = false;
    let standby = standby.iter().map(|target| target.resolver(&options));
    Box::new(Ranked::new(std::iter::once(first).chain(standby)))
}
