use std::fmt;

/// Names one subchannel of a channel: an address and the connection to it, if any.
///
/// The slot is small and dense, for a driver's table; the generation tells users of one slot apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubchannelId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl SubchannelId {
    /// The subchannel's place in a table: below the largest number of subchannels that were ever alive at once.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Display for SubchannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Names one attempt to connect a subchannel and the connection that it makes, so that late news of an earlier one is
/// told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The subchannel.
    pub subchannel: SubchannelId,
    pub(super) attempt: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.subchannel, self.attempt)
    }
}
