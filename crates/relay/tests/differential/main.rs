//! The same frames, valid and invalid, for a connection of ours and for one of the `h2` crate: what the RFC decides comes
//! out the same.
//!
//! Frames are given one after the other, and after each one both have to have said the same: which streams they reset and
//! why, and whether the connection is over and why. At the end both have to have seen the same of each stream. Where the
//! RFC lets an endpoint choose, `allowed.rs` has what it allows, with the section that does.

#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "tests are not documentation, and their data are of known sizes"
)]

mod allowed;
mod h2_peer;
mod steps;

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../connection/pair.rs"]
mod pair;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../connection/raw.rs"]
mod raw;

use std::collections::BTreeMap;

use evenkeel_relay::{
    connection::{Role, Settings},
    frame::{ErrorCode, FrameHeader, PREFACE, flag, kind},
};
use proptest::prelude::*;

use crate::{
    h2_peer::H2Peer,
    raw::{Raw, frame, settings},
    steps::{Step, Writer},
};

/// What a stream starts with on both sides, in bytes: small, so that it is exceeded now and then.
const WINDOW: u32 = 1_000;

/// What was said in answer to a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) resets: Vec<(u32, ErrorCode)>,
    pub(crate) goaway: Option<ErrorCode>,
}

impl Verdict {
    pub(crate) fn of(frames: &[(FrameHeader, Vec<u8>)]) -> Self {
        let code = |bytes: &[u8]| ErrorCode(u32::from_be_bytes(bytes.try_into().expect("four bytes")));
        let mut verdict = Self::default();
        for (header, payload) in frames {
            match header.kind {
                kind::RST_STREAM => verdict.resets.push((header.stream, code(payload))),
                kind::GOAWAY => verdict.goaway = Some(code(&payload[4..8])),
                _ => {}
            }
        }
        verdict
    }
}

/// What was seen of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Sorted: the `h2` crate has them in a map.
    pub(crate) head: Vec<(String, String)>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Option<Vec<(String, String)>>,
    pub(crate) ended: bool,
}

fn seen_by_us(raw: &Raw) -> BTreeMap<u32, Seen> {
    let sorted = |list: &pair::List| {
        let mut list = list.clone();
        list.sort();
        list
    };
    let seen = raw.side.seen.iter().filter_map(|(id, seen)| {
        let (head, trailers) = (sorted(seen.head.as_ref()?), seen.trailers.as_ref().map(sorted));
        Some((*id, Seen { head, data: seen.data.clone(), trailers, ended: seen.ended }))
    });
    seen.collect()
}

/// How many requests a client has sent when steps begin.
const REQUESTS: usize = 3;

/// Gives both, which are of this role, the steps, up to the first that ends either connection.
async fn compare(role: Role, steps: &[Step]) {
    let mut own_settings = Settings::default();
    own_settings.stream_window = WINDOW;
    let mut ours = Raw::silent(role, own_settings);
    ours.side.releases = false;
    let greeting = [settings(&[]), frame(kind::SETTINGS, flag::ACK, 0, &[])].concat();
    let (mut theirs, mut writer, greeting) = match role {
        Role::Server => (H2Peer::server().await, Writer::client(), [PREFACE, &greeting].concat()),
        Role::Client => {
            (0..REQUESTS).for_each(|_| _ = ours.open());
            (H2Peer::client(REQUESTS).await, Writer::server(REQUESTS), greeting)
        }
    };
    ours.say(&greeting);
    theirs.say(&greeting).await;
    ours.hear();
    theirs.hear().await;
    for (at, step) in steps.iter().enumerate() {
        let bytes = writer.bytes(step);
        let before = writer.known(step);
        ours.say(&bytes);
        theirs.say(&bytes).await;
        let (we, they) = (Verdict::of(&ours.hear()), Verdict::of(&theirs.hear().await));
        let is_over = we.goaway.is_some() || they.goaway.is_some();
        assert!(
            we == they || allowed::differs(step, before, &we, &they),
            "step {at} of {steps:?}\n{step:?} with {before:?}: we say {we:?}, they say {they:?}"
        );
        if is_over || we != they {
            return;
        }
        writer.note(step, &we);
    }
    assert_eq!(seen_by_us(&ours), theirs.seen(), "{steps:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_server_judges_frames_as_h2_does(steps in prop::collection::vec(steps::step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(compare(Role::Server, &steps));
    }

    #[test]
    fn a_client_judges_frames_as_h2_does(steps in prop::collection::vec(steps::step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(compare(Role::Client, &steps));
    }
}
