use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

/// Where a transport connects: one network address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 or IPv6 address and a TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix-domain stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// One instance of a service: what a policy chooses among (gRFC A61).
///
/// An instance may be reachable at several addresses (say, IPv4 and IPv6); a call goes to whichever of them connects.
/// Two endpoints with the same set of addresses are the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// In the order in which they should be tried. Never empty.
    pub addresses: Arc<[Address]>,
    /// The share of calls relative to other endpoints, for policies that read it. Default 1; never 0.
    pub weight: u32,
}

impl Endpoint {
    /// An endpoint of one address and weight 1.
    pub fn new(address: impl Into<Address>) -> Self {
        Self { addresses: Arc::new([address.into()]), weight: 1 }
    }

    /// An endpoint that is reachable at each of `addresses`, or `None` where there is none.
    pub fn with_addresses(addresses: impl IntoIterator<Item = Address>) -> Option<Self> {
        let addresses: Arc<[Address]> = addresses.into_iter().collect();
        (!addresses.is_empty()).then_some(Self { addresses, weight: 1 })
    }

    /// The same endpoint with another weight; 0 is taken as 1.
    #[must_use]
    pub fn weighted(self, weight: u32) -> Self {
        Self { weight: weight.max(1), ..self }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.addresses.iter().enumerate() {
            if i > 0 {
                f.write_str("|")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}
