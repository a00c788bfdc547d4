use evenkeel_balance::{KeepaliveSettings, ProgressSettings};

/// How a connection is watched, and how much its peer may send ahead.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineSettings {
    /// When a silent peer is suspected and given up, while calls are outstanding.
    pub progress: ProgressSettings,
    /// When a silent peer is asked for a sign of life, whether or not calls are outstanding.
    pub keepalive: KeepaliveSettings,
    /// What a peer may send ahead.
    pub windows: Windows,
}

/// What a peer may send before it has been read, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// On one stream. A slow reader costs this much and no more.
    pub stream: u32,
    /// What that may grow to where the path asks for more; it stays as it is where this is no more.
    pub most: u32,
    /// On all streams together. The streams' own windows bound it; a smaller one would let a few slow readers hold up
    /// every other call of the connection.
    pub connection: u32,
    /// The largest header list.
    pub header_list: u32,
}

/// What every HTTP/2 connection begins with.
const LEAST: u32 = 65_535;
/// What its format has room for.
const MOST: u32 = (1 << 31) - 1;

impl Windows {
    /// The window of this size, or the nearest that HTTP/2 allows.
    pub fn possible(size: u32) -> u32 {
        size.clamp(LEAST, MOST)
    }

    /// How much of a stream's window is given back at a time.
    pub fn released_at(&self) -> usize {
        self.stream as usize / 8
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self { stream: 512 * 1024, most: 0, connection: MOST, header_list: 64 * 1024 }
    }
}
