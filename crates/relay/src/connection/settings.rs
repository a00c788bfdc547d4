//! What a connection allows its peer, and what the peer allows us.

use std::time::Duration;

use crate::{
    frame::{DEFAULT_WINDOW, ErrorCode, FrameHeader, MAX_MAX_FRAME, MAX_WINDOW, MIN_MAX_FRAME, flag, kind, setting},
    hpack::ListLimits,
};

/// What a connection allows, of either role. One value serves all connections of a kind.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Streams that the peer may have open at once; more are refused. Server role alone. Default 1000.
    pub max_concurrent_streams: u32,
    /// What a peer may send on a new stream before we release anything, in bytes. Default 65,535, at most 2³¹ − 1.
    pub stream_window: u32,
    /// How far the window of a stream grows whose payload drains well, in bytes. It bounds what a stream can hold
    /// that drains well at first and then not at all. Default 1 MiB.
    pub most_stream_window: u32,
    /// What a peer may have under way on all streams together, in bytes. It is given back on receipt, so it bounds
    /// nothing but what lies in the socket. Default 16 MiB, at least 65,535 and at most 2³¹ − 1.
    pub connection_window: u32,
    /// The largest header list, in bytes as `SETTINGS_MAX_HEADER_LIST_SIZE` counts them. Default 64 KiB.
    pub max_header_list: u32,
    /// The most fields a header list may have: tiny ones are cheap to send and dear to keep. Default 256.
    pub max_header_count: u32,
    /// The size of the HPACK tables, in bytes: what the peer's encoder may use, and the most that ours uses whatever
    /// the peer allows. Default 4096.
    pub header_table: u32,
    /// How much output may wait before DATA stops, in bytes. With four times as much, which heads and replies alone
    /// can bring about, the peer is taken for one that does not read. Default 256 KiB.
    pub output_limit: usize,
    /// How long the peer has for its preface and its first SETTINGS. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a frame or a header block may stay unfinished, DATA aside. Default 10 s.
    pub header_timeout: Duration,
    /// How long a drain waits for the answer to its PING before it names the last stream. Default 1 s.
    pub drain_patience: Duration,
    /// What is too much of what is cheap to send and of no use.
    pub flood: FloodLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1000,
            stream_window: DEFAULT_WINDOW,
            most_stream_window: 1 << 20,
            connection_window: 16 << 20,
            max_header_list: 64 << 10,
            max_header_count: 256,
            header_table: 4096,
            output_limit: 256 << 10,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            drain_patience: Duration::from_secs(1),
            flood: FloodLimits::default(),
        }
    }
}

/// An allowance: `burst` at once, and `per_second` of them for good. After a long rest, twice the burst is let pass once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What may come at once.
    pub burst: u32,
    /// What is forgiven each second.
    pub per_second: u32,
}

/// How much of each kind of abuse ends a connection, by `ENHANCE_YOUR_CALM`.
///
/// Each allowance is also given back by useful work, as its field says, so that busy honest peers never use it up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FloodLimits {
    /// Streams that the client resets before they are answered, and younger than [`rapid_reset_age`]
    /// (CVE-2023-44487). Each answer gives two back. Default 400, 100 a second.
    ///
    /// [`rapid_reset_age`]: Self::rapid_reset_age
    pub rapid_resets: Allowance,
    /// A stream that lived as long as this had its place among the streams allowed at once, so resetting it is no
    /// abuse. Default 50 ms.
    pub rapid_reset_age: Duration,
    /// Stream errors that the peer provokes, malformed heads among them, and frames for streams that are over
    /// (CVE-2025-8671, CVE-2019-9514). Each answer gives one back. Default 500, 50 a second.
    pub glitches: Allowance,
    /// DATA frames of no or one byte that end nothing (CVE-2019-9518). Each longer DATA frame and each head gives one
    /// back. Default 1000, 100 a second.
    pub empty_data: Allowance,
    /// PING, SETTINGS and GOAWAY frames (CVE-2019-9512, CVE-2019-9515). Each head and each DATA frame gives one back,
    /// either way. Default 1000, 100 a second.
    pub pings: Allowance,
    /// `WINDOW_UPDATE`, PRIORITY and unknown frames (CVE-2019-9513). Each head and each DATA frame gives 20 back, either
    /// way, and one more for each 256 bytes that we send. Default 4000, 1000 a second.
    pub updates: Allowance,
    /// CONTINUATION frames of one header block (VU#421644). Default 16.
    pub continuations: u32,
    /// Replies to the peer's frames (acknowledgements, `RST_STREAM`) that wait unread. Default 1000.
    pub unread_replies: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            rapid_resets: Allowance { burst: 400, per_second: 100 },
            rapid_reset_age: Duration::from_millis(50),
            glitches: Allowance { burst: 500, per_second: 50 },
            empty_data: Allowance { burst: 1000, per_second: 100 },
            pings: Allowance { burst: 1000, per_second: 100 },
            updates: Allowance { burst: 4000, per_second: 1000 },
            continuations: 16,
            unread_replies: 1000,
        }
    }
}

impl Settings {
    pub(super) fn list_limits(&self) -> ListLimits {
        ListLimits { size: self.max_header_list as usize, count: self.max_header_count as usize }
    }

    /// What a peer may send on all streams: never less than it starts with.
    pub(super) fn connection_window(&self) -> u32 {
        self.connection_window.clamp(DEFAULT_WINDOW, LARGEST_WINDOW)
    }

    pub(super) fn stream_window(&self) -> u32 {
        self.stream_window.min(LARGEST_WINDOW)
    }

    /// Appends our SETTINGS frame.
    pub(super) fn write(&self, is_client: bool, out: &mut Vec<u8>) {
        let entries = [
            (setting::HEADER_TABLE_SIZE, self.header_table, 4096),
            if is_client {
                (setting::ENABLE_PUSH, 0, 1)
            } else {
                (setting::MAX_CONCURRENT_STREAMS, self.max_concurrent_streams, u32::MAX)
            },
            (setting::INITIAL_WINDOW_SIZE, self.stream_window(), DEFAULT_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, self.max_header_list, u32::MAX),
        ];
        let told = entries.iter().filter(|(_, value, default)| value != default);
        let mut header = FrameHeader { length: 0, kind: kind::SETTINGS, flags: 0, stream: 0 };
        told.clone().for_each(|_| header.length += 6);
        header.write(out);
        for (id, value, _) in told {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// The largest window there is, as a setting.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// The length of one setting on the wire, in bytes.
const ENTRY: usize = 6;

/// What the peer allows us.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    pub(super) max_concurrent_streams: u32,
    pub(super) initial_window: u32,
    pub(super) max_frame: u32,
    pub(super) max_header_list: u32,
    /// Set once the peer has said something about it.
    pub(super) header_table: Option<u32>,
}

impl PeerSettings {
    /// Before the peer has said anything: the RFC's initial values, and 100 streams, which it recommends to allow.
    pub(super) const fn assumed() -> Self {
        Self {
            max_concurrent_streams: 100,
            initial_window: DEFAULT_WINDOW,
            max_frame: MIN_MAX_FRAME,
            max_header_list: u32::MAX,
            header_table: None,
        }
    }

    /// These settings as the payload of a SETTINGS frame changes them. Of a setting that comes twice, the last counts.
    pub(super) fn apply(mut self, payload: &[u8], from_server: bool) -> Result<Self, (ErrorCode, &'static str)> {
        if !payload.len().is_multiple_of(ENTRY) {
            return Err((ErrorCode::FRAME_SIZE_ERROR, "a SETTINGS frame whose length is no multiple of 6"));
        }
        for entry in payload.chunks_exact(ENTRY) {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            self.set(id, value, from_server)?;
        }
        Ok(self)
    }

    fn set(&mut self, id: u16, value: u32, from_server: bool) -> Result<(), (ErrorCode, &'static str)> {
        match id {
            setting::HEADER_TABLE_SIZE => self.header_table = Some(value),
            setting::ENABLE_PUSH if value > 1 || (value == 1 && from_server) => {
                return Err((ErrorCode::PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH has a value that it must not have"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
            setting::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                return Err((ErrorCode::FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is above 2^31-1"));
            }
            setting::INITIAL_WINDOW_SIZE => self.initial_window = value,
            setting::MAX_FRAME_SIZE if !(MIN_MAX_FRAME..=MAX_MAX_FRAME).contains(&value) => {
                return Err((ErrorCode::PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range"));
            }
            setting::MAX_FRAME_SIZE => self.max_frame = value,
            setting::MAX_HEADER_LIST_SIZE => self.max_header_list = value,
            _ => {}
        }
        Ok(())
    }
}

/// Appends the acknowledgement of the peer's SETTINGS.
pub(super) fn write_ack(out: &mut Vec<u8>) {
    FrameHeader { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.write(out);
}
