use super::LeafState;
use crate::Connectivity;

/// How many endpoints are in which state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    pub(super) idle: usize,
    pub(super) connecting: usize,
    pub(super) ready: usize,
    pub(super) failed: usize,
}

impl Census {
    pub(super) fn count(&mut self, state: &LeafState, comes: bool) {
        let counter = match state {
            LeafState::Idle => &mut self.idle,
            LeafState::Connecting => &mut self.connecting,
            LeafState::Ready(_) => &mut self.ready,
            LeafState::Failed(_) => &mut self.failed,
        };
        if comes { *counter += 1 } else { *counter -= 1 }
    }

    /// The rules of gRFC A42, in their order. Two failures stand for all: to wait until every endpoint has been tried
    /// would take too long where they are tried one by one. One failure does not.
    pub(super) fn lazily(&self) -> Connectivity {
        match *self {
            Self { ready: 1.., .. } => Connectivity::Ready,
            Self { failed: 2.., .. } => Connectivity::TransientFailure,
            Self { connecting: 1.., .. } | Self { failed: 1, idle: 1.., .. } => Connectivity::Connecting,
            Self { idle: 1.., .. } => Connectivity::Idle,
            _ => Connectivity::TransientFailure,
        }
    }

    /// The rules of gRFC A61, for endpoints that are all kept connected.
    pub(super) fn eagerly(&self) -> Connectivity {
        match *self {
            Self { ready: 1.., .. } => Connectivity::Ready,
            Self { connecting: 1.., .. } | Self { idle: 1.., .. } => Connectivity::Connecting,
            _ => Connectivity::TransientFailure,
        }
    }
}
