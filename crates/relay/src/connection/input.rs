//! From bytes to frames: what came in part is kept, but payload of DATA is passed on as it comes.

use evenkeel_balance::Time;

use super::StreamKey;
use crate::frame::{FrameHeader, HEADER, PREFACE, kind};

/// Where in the peer's bytes we are.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) stage: Stage,
    /// The start of a frame other than DATA, or of any frame's header.
    partial: Vec<u8>,
    /// A header block whose CONTINUATION frames are still to come.
    pub(super) block: Option<Box<OpenBlock>>,
    /// Since when the partial frame or the open block waits.
    waits_since: Option<Time>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// The rest of the preface; this much of it has come.
    Preface(usize),
    /// A frame.
    Frame,
    /// The rest of a DATA frame's payload.
    Data(DataFrame),
    /// Nothing that means anything.
    Over,
}

/// What is known of a DATA frame whose payload is coming.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFrame {
    /// None if nobody wants it.
    pub(super) stream: Option<StreamKey>,
    /// What is still to come of its payload, padding included, in bytes.
    pub(super) left: u32,
    /// The padding at its end, in bytes; None before the byte that tells.
    pub(super) padding: Option<u32>,
    pub(super) ends: bool,
}

/// A header block so far.
#[derive(Debug)]
pub(super) struct OpenBlock {
    pub(super) head: BlockHead,
    pub(super) bytes: Vec<u8>,
    pub(super) continuations: u32,
}

/// What a HEADERS frame says beside its block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockHead {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) depends_on_itself: bool,
}

/// What came next.
pub(super) enum Taken<'i> {
    /// Nothing whole.
    Nothing,
    /// The header of a DATA frame, whose payload comes next.
    Data(FrameHeader),
    /// A whole frame.
    Frame(FrameHeader, &'i [u8]),
    /// A frame that was kept in part and is now whole; [`Input::put_back`] its memory.
    Kept(FrameHeader, Vec<u8>),
}

/// The memory that is kept for the next frame that comes in part, in bytes.
const KEPT: usize = 256;

impl Input {
    pub(super) const fn new(expects_preface: bool) -> Self {
        let stage = if expects_preface { Stage::Preface(0) } else { Stage::Frame };
        Self { stage, partial: Vec::new(), block: None, waits_since: None }
    }

    /// Takes what is there of the preface. None: it is another protocol's.
    pub(super) fn take_preface(&mut self, input: &mut &[u8], seen: usize) -> Option<()> {
        let expected = &PREFACE[seen..];
        let length = expected.len().min(input.len());
        let (came, rest) = input.split_at(length);
        if came != &expected[..length] {
            return None;
        }
        *input = rest;
        self.stage = if length == expected.len() { Stage::Frame } else { Stage::Preface(seen + length) };
        Some(())
    }

    /// Takes the next frame. `admit` judges its header before any of its payload is kept.
    #[inline]
    pub(super) fn take_frame<'i, E>(
        &mut self,
        input: &mut &'i [u8],
        admit: impl Fn(&Self, FrameHeader) -> Result<(), E>,
    ) -> Result<Taken<'i>, E> {
        if !self.partial.is_empty() {
            return self.take_kept(input, admit);
        }
        let Some((bytes, rest)) = input.split_first_chunk::<HEADER>() else {
            self.keep(input, input.len());
            return Ok(Taken::Nothing);
        };
        let header = FrameHeader::parse(bytes);
        admit(self, header)?;
        if header.kind == kind::DATA {
            *input = rest;
            return Ok(Taken::Data(header));
        }
        let Some((payload, rest)) = rest.split_at_checked(header.length as usize) else {
            self.keep(input, input.len());
            return Ok(Taken::Nothing);
        };
        *input = rest;
        Ok(Taken::Frame(header, payload))
    }

    fn take_kept<'i, E>(
        &mut self,
        input: &mut &'i [u8],
        admit: impl Fn(&Self, FrameHeader) -> Result<(), E>,
    ) -> Result<Taken<'i>, E> {
        if self.partial.len() < HEADER {
            self.keep(input, HEADER - self.partial.len());
            let Some(header) = self.kept_header() else { return Ok(Taken::Nothing) };
            admit(self, header)?;
            if header.kind == kind::DATA {
                self.partial.clear();
                return Ok(Taken::Data(header));
            }
        }
        let Some(header) = self.kept_header() else { return Ok(Taken::Nothing) };
        let length = HEADER + header.length as usize;
        self.keep(input, length - self.partial.len());
        if self.partial.len() < length {
            return Ok(Taken::Nothing);
        }
        Ok(Taken::Kept(header, std::mem::take(&mut self.partial)))
    }

    fn kept_header(&self) -> Option<FrameHeader> {
        self.partial.first_chunk::<HEADER>().map(FrameHeader::parse)
    }

    /// Moves up to `most` bytes of the input to what is kept.
    fn keep(&mut self, input: &mut &[u8], most: usize) {
        let (kept, rest) = input.split_at(most.min(input.len()));
        self.partial.extend_from_slice(kept);
        *input = rest;
    }

    /// Gives the memory of a kept frame back.
    pub(super) fn put_back(&mut self, mut memory: Vec<u8>) {
        if memory.capacity() <= KEPT {
            memory.clear();
            self.partial = memory;
        }
    }

    /// Nothing more is read.
    pub(super) fn end(&mut self) {
        *self = Self { stage: Stage::Over, ..Self::new(false) };
    }

    /// The input is used up: whatever is unfinished now waits, from the moment on that it began to.
    #[inline]
    pub(super) fn rest(&mut self, now: Time) {
        if self.partial.is_empty() && self.block.is_none() {
            self.waits_since = None;
        } else if self.waits_since.is_none() {
            self.waits_since = Some(now);
        }
    }

    /// A frame or a block is finished: what waits from here on began later.
    #[inline]
    pub(super) fn finished(&mut self) {
        if self.block.is_none() {
            self.waits_since = None;
        }
    }

    /// Since when an unfinished frame or header block waits for its rest.
    pub(super) fn waits_since(&self) -> Option<Time> {
        self.waits_since
    }
}
