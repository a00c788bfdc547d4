//! A gRPC status as headers: `grpc-status` and `grpc-message`.

use std::fmt::Write;

use evenkeel_balance::{Code, Status};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The code in a response's headers or trailers; `None` where there is none, UNKNOWN where it is not a number.
pub fn code(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get(&GRPC_STATUS)?;
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(number.map_or(Code::Unknown, Code::from_number))
}

/// The code of a response's head: what gRPC's mapping says where HTTP's own status is all there is, as of a proxy's
/// error.
pub fn of_head(status: StatusCode, headers: &HeaderMap) -> Option<Code> {
    code(headers).or_else(|| match status.as_u16() {
        200 => None,
        400 => Some(Code::Internal),
        401 => Some(Code::Unauthenticated),
        403 => Some(Code::PermissionDenied),
        404 => Some(Code::Unimplemented),
        429 | 502..=504 => Some(Code::Unavailable),
        _ => Some(Code::Unknown),
    })
}

/// Writes `status` into `headers`.
pub fn write(status: &Status, headers: &mut HeaderMap) {
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status.code.number())));
    if !status.message.is_empty() {
        headers.insert(GRPC_MESSAGE, percent_encoded(&status.message));
    }
}

/// Printable ASCII but `%` as it is, every other byte of the UTF-8 as `%XX`.
fn percent_encoded(message: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (0x20..=0x7E).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_as_grpc_says() {
        let mut headers = HeaderMap::new();
        write(&Status::unavailable("100 % naïve\n"), &mut headers);
        assert_eq!(headers["grpc-status"], "14");
        assert_eq!(headers["grpc-message"], "100 %25 na%C3%AFve%0A");
        assert_eq!(code(&headers), Some(Code::Unavailable));
        assert_eq!(code(&HeaderMap::new()), None);
        headers.insert(GRPC_STATUS, HeaderValue::from_static("x"));
        assert_eq!(code(&headers), Some(Code::Unknown));
    }
}
