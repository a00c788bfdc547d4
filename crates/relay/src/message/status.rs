use evenkeel_balance::{Code, Status};

use crate::fields::{Field, Fields};

/// How a response's head or its trailers say that the call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStatus {
    /// The status; `None` where a head says 200 and leaves it to the trailers.
    pub code: Option<Code>,
}

impl HeadStatus {
    /// Reads a head, or trailers: `grpc-status`, or what gRPC's mapping makes of HTTP's status where that is all.
    pub fn read(fields: &Fields) -> Self {
        let (mut grpc, mut http) = (None, None);
        for field in fields.iter() {
            match field.name {
                b"grpc-status" => grpc = Some(parse_code(field.value)),
                b":status" => http = of_http(field.value),
                _ => {}
            }
        }
        Self { code: grpc.or(http) }
    }
}

fn parse_code(value: &[u8]) -> Code {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.map_or(Code::Unknown, Code::from_number)
}

fn of_http(status: &[u8]) -> Option<Code> {
    match status {
        b"200" => None,
        b"400" => Some(Code::Internal),
        b"401" => Some(Code::Unauthenticated),
        b"403" => Some(Code::PermissionDenied),
        b"404" => Some(Code::Unimplemented),
        b"429" | b"502" | b"503" | b"504" => Some(Code::Unavailable),
        _ => Some(Code::Unknown),
    }
}

/// Writes `status` as `grpc-status` and `grpc-message` behind what `fields` has.
pub fn write_status(status: &Status, fields: &mut Fields) {
    fields.push(Field::new(b"grpc-status", status.code.number().to_string().as_bytes()));
    if !status.message.is_empty() {
        fields.push(Field::new(b"grpc-message", &percent_encoded(&status.message)));
    }
}

/// Printable ASCII but `%` as it is, every other byte of the UTF-8 as `%XX`.
fn percent_encoded(message: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        if (0x20..=0x7E).contains(&byte) && byte != b'%' {
            encoded.push(byte);
        } else {
            encoded.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Option<Code> {
        let mut fields = Fields::new();
        fields.push(Field::new(name.as_bytes(), value.as_bytes()));
        HeadStatus::read(&fields).code
    }

    #[test]
    fn statuses_are_written_as_grpc_says_and_read_back() {
        let mut fields = Fields::new();
        write_status(&Status::unavailable("100 % naïve\n"), &mut fields);
        assert_eq!(fields.value(b"grpc-status"), Some(&b"14"[..]));
        assert_eq!(fields.value(b"grpc-message"), Some(&b"100 %25 na%C3%AFve%0A"[..]));
        assert_eq!(HeadStatus::read(&fields).code, Some(Code::Unavailable));
    }

    #[test]
    fn http_counts_where_grpc_says_nothing() {
        assert_eq!(read(":status", "200"), None);
        assert_eq!(read(":status", "503"), Some(Code::Unavailable));
        assert_eq!(read("grpc-status", "x"), Some(Code::Unknown));
        assert_eq!(read("grpc-status", "99"), Some(Code::Unknown));
    }
}
