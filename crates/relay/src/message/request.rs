use std::time::Duration;

use crate::{fields::Fields, message::Timeout};

/// What the relay must know of a call's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How long the caller waits, if it has said so.
    pub timeout: Option<Duration>,
}

/// Why a request is no call, as it is answered: an HTTP status and words for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: &'static str,
    /// What is wrong, and what would be right.
    pub why: &'static str,
    /// Whether a gRPC status, INTERNAL, goes with it.
    pub with_status: bool,
}

impl Request {
    /// Reads a head that is valid HTTP/2.
    ///
    /// # Errors
    ///
    /// Where it is no gRPC call: 405 for other methods than POST, 400 for a path that is not `/service/method` or a
    /// malformed `grpc-timeout`, 415 for another content type than `application/grpc`.
    pub fn read(head: &Fields) -> Result<Self, Refusal> {
        let (mut timeout, mut is_grpc, mut is_post, mut has_path) = (None, false, false, false);
        for field in head.iter() {
            match field.name {
                b":method" => is_post = field.value == b"POST",
                b":path" => has_path = field.value.first() == Some(&b'/'),
                b"content-type" => is_grpc = is_grpc_type(field.value),
                b"grpc-timeout" => timeout = Some(Timeout::parse(field.value)),
                _ => {}
            }
        }
        let refusal = |status, why| Err(Refusal { status, why, with_status: false });
        if !is_post {
            return refusal("405", "gRPC calls are POST requests");
        }
        if !has_path {
            return refusal("400", "the path of a gRPC call is /service/method");
        }
        if !is_grpc {
            return refusal("415", "the content-type of a gRPC call is application/grpc");
        }
        match timeout {
            Some(Timeout::Malformed) => {
                let why = "grpc-timeout is 1 to 8 digits and a unit of H, M, S, m, u or n";
                Err(Refusal { status: "400", why, with_status: true })
            }
            Some(Timeout::After(timeout)) => Ok(Self { timeout: Some(timeout) }),
            None => Ok(Self { timeout: None }),
        }
    }
}

impl Refusal {
    /// A header list beyond the limit.
    pub const TOO_LARGE: Self =
        Self { status: "431", why: "the metadata is larger than is let through", with_status: false };
}

/// `application/grpc`, alone or with a suffix or parameters behind.
fn is_grpc_type(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    match value.get(..TYPE.len()) {
        Some(start) if start.eq_ignore_ascii_case(TYPE) => {
            matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Field;

    const CALL: [(&str, &str); 5] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        ("content-type", "application/grpc+proto"),
        ("te", "trailers"),
    ];

    fn read(change: (&str, &str)) -> Result<Request, Refusal> {
        let mut fields = Fields::new();
        for (name, value) in CALL.into_iter().filter(|(name, _)| *name != change.0).chain([change]) {
            fields.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        Request::read(&fields)
    }

    #[test]
    fn calls_are_let_through() {
        assert_eq!(read(("x", "y")), Ok(Request { timeout: None }));
        assert_eq!(read(("grpc-timeout", "2S")), Ok(Request { timeout: Some(Duration::from_secs(2)) }));
        for fine in ["application/grpc", "application/grpc;charset=utf-8", "Application/GRPC+json"] {
            assert!(read(("content-type", fine)).is_ok(), "{fine}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused_as_http_says() {
        let status = |change| read(change).unwrap_err().status;
        assert_eq!(status((":method", "GET")), "405");
        assert_eq!(status((":path", "a.B/C")), "400");
        assert_eq!(status(("content-type", "text/html")), "415");
        assert_eq!(status(("content-type", "application/grpc-web")), "415");
        for bad in ["abc", "1", "", "-1S", "1x"] {
            let refusal = read(("grpc-timeout", bad)).unwrap_err();
            assert_eq!((refusal.status, refusal.with_status), ("400", true), "{bad}");
        }
    }
}
