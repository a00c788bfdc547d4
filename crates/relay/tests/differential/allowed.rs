//! Where the two of us say different things, and which section of RFC 9113 allows what we say.

use evenkeel_relay::frame::{ErrorCode, kind};

use crate::{
    Verdict,
    steps::{FOREIGN, Known, Step, TRAILERS, VALID},
};

/// Whether both verdicts on this step are known and accounted for.
pub(crate) fn differs(step: &Step, known: Known, we: &Verdict, they: &Verdict) -> bool {
    // 5.4.2: a stream error may be treated as a connection error.
    let is_wider = matches!((said(we), said(they)), (Said::Reset(one), Said::Goaway(other))
        | (Said::Goaway(one), Said::Reset(other)) if one == other);
    is_wider || is_less_exact(we, they) || is_known(step, known, said(we), said(they))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Reset(ErrorCode),
    Goaway(ErrorCode),
}

fn said(verdict: &Verdict) -> Said {
    match (verdict.goaway, &verdict.resets[..]) {
        (Some(code), _) => Said::Goaway(code),
        (None, [(_, code), ..]) => Said::Reset(*code),
        (None, []) => Said::Nothing,
    }
}

/// 7: `PROTOCOL_ERROR` is for where no other code fits. Sections 4.2, 4.3, 5.1 and 6.5.2 have one that does, and say that
/// it is to be used; the `h2` crate does not, and ends the connection.
fn is_less_exact(we: &Verdict, they: &Verdict) -> bool {
    let (Said::Reset(code) | Said::Goaway(code)) = said(we) else { return false };
    let exact = [
        ErrorCode::FRAME_SIZE_ERROR,
        ErrorCode::COMPRESSION_ERROR,
        ErrorCode::STREAM_CLOSED,
        ErrorCode::FLOW_CONTROL_ERROR,
    ];
    exact.contains(&code) && said(they) == Said::Goaway(ErrorCode::PROTOCOL_ERROR)
}

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;

fn is_known(step: &Step, known: Known, we: Said, they: Said) -> bool {
    match *step {
        // 8.3: a response has no pseudo-header field of requests. The `h2` crate passes over it.
        Step::Headers { list: FOREIGN, .. } if known == Known::Asked && they == Said::Nothing => {
            we == Said::Reset(PROTOCOL)
        }
        Step::Headers { list, ends, piece, .. } => {
            let is_good = match known {
                Known::Open => list == TRAILERS && ends,
                Known::Idle | Known::Asked => list < VALID && list != TRAILERS,
                _ => false,
            };
            !is_good && is_known_of_bad_heads(known, piece > 0, we, they) || is_known_of_heads(known, we, they)
        }
        Step::Other { kind: kind::HEADERS, .. } => is_known_of_heads(known, we, they) || they == Said::Nothing,
        Step::Data { .. } | Step::Other { kind: kind::DATA, .. } => {
            // 5.1.1 makes the lower id an error of the connection, 5.1 and 6.1 make the stream one that is closed.
            (known, we, they) == (Known::PassedOver, Said::Goaway(PROTOCOL), Said::Reset(CLOSED))
        }
        // 6.9 makes an increment of nothing an error of its stream; 5.1 ignores the frame where that is over.
        Step::Update { increment: 0, .. } | Step::Other { kind: kind::WINDOW_UPDATE, .. } => {
            !matches!(known, Known::Idle | Known::Open) && (we, they) == (Said::Nothing, Said::Goaway(PROTOCOL))
        }
        // 6.5.2: unknown settings are ignored. This one is of RFC 8441, which allows it to be 0 or 1.
        Step::Setting { id: 8, .. } => (we, they) == (Said::Nothing, Said::Goaway(PROTOCOL)),
        // 6.5.2: a server does not say that push is allowed. The `h2` crate lets a client hear it.
        Step::Setting { id: 2, .. } => (we, they) == (Said::Goaway(PROTOCOL), Said::Nothing),
        // 5.3.2: priorities are a thing of RFC 7540, where one that is nonsense is an error of its stream (5.3.1). Where
        // that is none that lives, we make it one of the connection, and the `h2` crate may ignore it.
        Step::Priority { .. } | Step::Other { kind: kind::PRIORITY, .. } => {
            known != Known::Open && (we, they) == (Said::Goaway(PROTOCOL), Said::Nothing)
        }
        // 8.4: whatever else is wrong with a PUSH_PROMISE, a client must not send any.
        Step::Other { kind: kind::PUSH_PROMISE, .. } => we == Said::Goaway(PROTOCOL),
        _ => false,
    }
}

/// Of heads and trailers, good and bad.
fn is_known_of_heads(known: Known, we: Said, they: Said) -> bool {
    // 5.1: what comes on a stream that we have reset is ignored, or an error where it was to be known.
    let is_error = matches!(they, Said::Goaway(PROTOCOL) | Said::Reset(PROTOCOL));
    known == Known::WeReset && we == Said::Nothing && is_error
}

/// Of lists that are no valid message where they come.
fn is_known_of_bad_heads(known: Known, is_in_pieces: bool, we: Said, they: Said) -> bool {
    match (we, they) {
        // 8.1: trailers end the stream and have no pseudo-header fields. The `h2` crate drops those that are there.
        (Said::Reset(PROTOCOL), Said::Nothing) if known == Known::Open => true,
        // 8.1.1: malformed in a HEADERS frame that CONTINUATION follows. The `h2` crate forgets some of it.
        (Said::Reset(PROTOCOL), Said::Nothing) => is_in_pieces,
        // 5.1 has an error for a stream that is over, 8.1.1 for a malformed list: this is both.
        (Said::Reset(CLOSED) | Said::Goaway(CLOSED), Said::Reset(PROTOCOL)) => known != Known::Idle,
        _ => false,
    }
}
