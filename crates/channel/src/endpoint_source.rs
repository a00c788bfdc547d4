use evenkeel_naming::{Options, Resolver, Resolving, Target};

/// Where a channel's endpoints come from.
pub(crate) enum EndpointSource {
    /// A target, for which there is a new resolver whenever one is wanted.
    Target(Box<(Target, Options)>),
    /// A resolver of the caller's own. There is only one, so that it runs on once it has begun.
    Own(Option<Box<dyn Resolver>>),
}

impl EndpointSource {
    /// Starts a resolver; `None` where the only one has been started.
    pub(crate) fn start(&mut self) -> Option<Resolving> {
        match self {
            Self::Target(found_by) => Some(evenkeel_naming::start(found_by.0.resolver(&found_by.1))),
            Self::Own(resolver) => resolver.take().map(evenkeel_naming::start),
        }
    }

    /// Whether a resolver that is stopped can be replaced.
    pub(crate) fn can_restart(&self) -> bool {
        matches!(self, Self::Target(..))
    }
}
