use std::fmt;

use evenkeel_proto::health::health_check_response::ServingStatus as Wire;

/// How a service is, in the words of grpc.health.v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServingStatus {
    /// Registered, but nothing is known yet. Callers treat it as not serving.
    Unknown,
    /// Ready for calls.
    Serving,
    /// Up, but calls must go elsewhere.
    NotServing,
    /// Not registered.
    ServiceUnknown,
}

impl ServingStatus {
    /// The status of a number on the wire; numbers that the protocol does not define are [`ServingStatus::Unknown`].
    pub fn from_number(number: i32) -> Self {
        match Wire::try_from(number) {
            Ok(Wire::Serving) => Self::Serving,
            Ok(Wire::NotServing) => Self::NotServing,
            Ok(Wire::ServiceUnknown) => Self::ServiceUnknown,
            Ok(Wire::Unknown) | Err(_) => Self::Unknown,
        }
    }

    /// The number on the wire.
    pub fn number(self) -> i32 {
        self.wire() as i32
    }

    /// The protocol's name, such as `NOT_SERVING`.
    pub fn name(self) -> &'static str {
        self.wire().as_str_name()
    }

    fn wire(self) -> Wire {
        match self {
            Self::Unknown => Wire::Unknown,
            Self::Serving => Wire::Serving,
            Self::NotServing => Wire::NotServing,
            Self::ServiceUnknown => Wire::ServiceUnknown,
        }
    }
}

impl fmt::Display for ServingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_protocols() {
        use ServingStatus::{NotServing, ServiceUnknown, Serving, Unknown};
        for (number, status) in (0..).zip([Unknown, Serving, NotServing, ServiceUnknown]) {
            assert_eq!(status.number(), number);
            assert_eq!(ServingStatus::from_number(number), status);
        }
        assert_eq!(ServingStatus::from_number(4), Unknown);
        assert_eq!(ServingStatus::from_number(-1), Unknown);
        assert_eq!(ServiceUnknown.to_string(), "SERVICE_UNKNOWN");
    }
}
