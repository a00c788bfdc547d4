//! What a connection counts.

use std::ops::AddAssign;

/// What has happened on a connection, each a plain count since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Streams opened, by either side.
    pub streams: u64,
    /// Streams that the peer reset.
    pub resets_received: u64,
    /// Streams that we reset, for whatever reason.
    pub resets_sent: u64,
    /// Streams of the peer's that were beyond what we allow at once, or came too late.
    pub refused: u64,
    /// Header lists that are no valid message.
    pub malformed: u64,
    /// Header lists beyond the limits of size or count.
    pub header_lists_too_large: u64,
    /// All stream errors that the peer provoked, malformed messages included, and frames of streams that are over.
    pub glitches: u64,
    /// PING frames that asked for an answer.
    pub pings: u64,
    /// SETTINGS frames but acknowledgements.
    pub settings: u64,
    /// `WINDOW_UPDATE`, PRIORITY and unknown frames.
    pub updates: u64,
    /// DATA frames of no or one byte that ended nothing.
    pub empty_data: u64,
    /// Streams reset soon and before they were answered.
    pub rapid_resets: u64,
    /// Connections that ended because of a flood, by its kind.
    pub floods: Floods,
    /// Connections that ended because of an error of the peer's that is no flood.
    pub connection_errors: u64,
    /// Connections that ended because the peer took too long over its preface or a header block.
    pub timeouts: u64,
}

/// Floods by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Floods {
    /// Streams opened and reset at once.
    pub rapid_resets: u64,
    /// Stream errors, one after the other.
    pub glitches: u64,
    /// DATA frames with next to nothing in them.
    pub empty_data: u64,
    /// PING, SETTINGS and GOAWAY frames.
    pub pings: u64,
    /// `WINDOW_UPDATE`, PRIORITY and unknown frames.
    pub updates: u64,
    /// Header blocks in too many pieces, or too large even while compressed.
    pub continuations: u64,
    /// Header blocks that decompress to many times what is allowed.
    pub header_bombs: u64,
    /// Replies and heads that the peer does not read.
    pub unread: u64,
}

impl Floods {
    /// Each kind by its name.
    pub fn by_kind(&self) -> [(&'static str, u64); 8] {
        [
            ("rapid_resets", self.rapid_resets),
            ("glitches", self.glitches),
            ("empty_data", self.empty_data),
            ("pings", self.pings),
            ("updates", self.updates),
            ("continuations", self.continuations),
            ("header_bombs", self.header_bombs),
            ("unread", self.unread),
        ]
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.streams += other.streams;
        self.resets_received += other.resets_received;
        self.resets_sent += other.resets_sent;
        self.refused += other.refused;
        self.malformed += other.malformed;
        self.header_lists_too_large += other.header_lists_too_large;
        self.glitches += other.glitches;
        self.pings += other.pings;
        self.settings += other.settings;
        self.updates += other.updates;
        self.empty_data += other.empty_data;
        self.rapid_resets += other.rapid_resets;
        self.floods += other.floods;
        self.connection_errors += other.connection_errors;
        self.timeouts += other.timeouts;
    }
}

impl AddAssign for Floods {
    fn add_assign(&mut self, other: Self) {
        self.rapid_resets += other.rapid_resets;
        self.glitches += other.glitches;
        self.empty_data += other.empty_data;
        self.pings += other.pings;
        self.updates += other.updates;
        self.continuations += other.continuations;
        self.header_bombs += other.header_bombs;
        self.unread += other.unread;
    }
}
