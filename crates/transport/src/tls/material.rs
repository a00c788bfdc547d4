//! What TLS is made of: PEM, read whole, and the client configuration that comes of it.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use super::{Identity, Pem, Protocol, Tls, TlsError};

/// No bundle of certificates is as large; more of a file is not read.
const MAX_FILE: u64 = 8 << 20;

/// The PEM of a [`Tls`] as it stands now.
#[derive(PartialEq, Eq)]
pub(super) struct Material {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// Reads every file of `tls`.
    pub(super) fn read(tls: &Tls) -> Result<Self, TlsError> {
        let ca = tls.ca.as_ref().map(Pem::read).transpose()?;
        let pair = |identity: &Identity| Ok::<_, TlsError>((identity.chain.read()?, identity.key.read()?));
        Ok(Self { ca, identity: tls.identity.as_ref().map(pair).transpose()? })
    }

    /// The configuration of a client that offers `protocol` by ALPN.
    pub(super) fn config(&self, tls: &Tls, protocol: Protocol) -> Result<ClientConfig, TlsError> {
        let roots = match (&self.ca, &tls.ca) {
            (Some(pem), Some(source)) => own_roots(pem, &source.origin("the CA"))?,
            _ => system_roots()?,
        };
        // Named here, because the process may have settled on another provider, or on none.
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let mut config = match (&self.identity, &tls.identity) {
            (Some((chain, key)), Some(source)) => {
                let origin = source.chain.origin("the identity's chain");
                let chain = certificates(chain, &origin)?;
                let key = private_key(key, &source.key.origin("the identity's key"))?;
                let refused = |error: rustls::Error| TlsError::Identity { origin, problem: error.to_string() };
                builder.with_client_auth_cert(chain, key).map_err(refused)?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocol.name().map(<[u8]>::to_vec).into_iter().collect();
        Ok(config)
    }
}

impl Pem {
    pub(super) fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read_file(path).map_err(|error| TlsError::Read { path: path.clone(), error }),
        }
    }

    pub(super) fn origin(&self, role: &str) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => role.to_owned(),
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

pub(super) fn own_roots(pem: &[u8], origin: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, origin)? {
        roots.add(certificate).map_err(|error| unusable(origin, "certificate", &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold certificates that are too old to be understood; the others count.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    Err(TlsError::SystemRoots(if reasons.is_empty() { "none found".to_owned() } else { reasons.join(", ") }))
}

pub(super) fn certificates(pem: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(found) if found.is_empty() => Err(unusable(origin, "certificate", &pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(origin, "certificate", &error)),
    }
}

pub(super) fn private_key(pem: &[u8], origin: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(origin, "private key", &error))
}

fn unusable(origin: &str, expected: &'static str, error: &impl ToString) -> TlsError {
    TlsError::Pem { origin: origin.to_owned(), expected, problem: error.to_string() }
}
