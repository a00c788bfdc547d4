//! TLS of a probe: as a channel's, and beside it one that remembers the certificate it was shown, to say what is wrong
//! with it, and one that takes any.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};

/// What a probe trusts, and who it is.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    provider: Arc<CryptoProvider>,
    /// `None` takes any certificate.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    identity: Option<Arc<SingleCertAndKey>>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    #[error("cannot read {}: {error}; --tls-ca-cert must name a PEM file", path.display())]
    RootsUnread { path: PathBuf, error: io::Error },
    #[error("no certificate in {}; --tls-ca-cert must name a PEM file with at least one", path.display())]
    NoRoots { path: PathBuf },
    #[error("no root certificates on this system; install them (ca-certificates), or name yours by --tls-ca-cert")]
    NoSystemRoots,
    #[error("cannot read {}: {error}; --tls-client-cert and --tls-client-key must name PEM files", path.display())]
    IdentityUnread { path: PathBuf, error: io::Error },
    #[error("{}: {problem}; --tls-client-cert and --tls-client-key must name a certificate and its own key, in PEM", path.display())]
    Identity { path: PathBuf, problem: String },
}

impl Credentials {
    /// Trusts the certificates of `ca`, or the system's.
    pub(super) fn verifying(ca: Option<PathBuf>) -> Result<Self, CredentialsError> {
        let roots = ca.map_or_else(system_roots, own_roots)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        Ok(Self { verifier: Some(verifier.expect("there are roots, and no revocation lists")), ..Self::blind() })
    }

    /// Takes any certificate.
    pub(super) fn blind() -> Self {
        Self { provider: Arc::new(ring::default_provider()), verifier: None, identity: None }
    }

    /// Shows servers this certificate.
    pub(super) fn showing(self, chain: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let unread = |path: &Path| {
            let path = path.to_owned();
            move |error| CredentialsError::IdentityUnread { path, error }
        };
        let (chain_pem, key_pem) = (fs::read(chain).map_err(unread(chain))?, fs::read(key).map_err(unread(key))?);
        let unusable = |path: &Path, problem: String| CredentialsError::Identity { path: path.to_owned(), problem };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem).filter_map(Result::ok).collect();
        if certificates.is_empty() {
            return Err(unusable(chain, "no certificate in it".to_owned()));
        }
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| unusable(key, error.to_string()))?;
        let certified = CertifiedKey::from_der(certificates, private, &self.provider)
            .map_err(|error| unusable(chain, error.to_string()))?;
        Ok(Self { identity: Some(Arc::new(SingleCertAndKey::from(certified))), ..self })
    }

    /// What one handshake goes by, and what remembers the certificate of its server.
    pub(super) fn handshake(&self) -> (Arc<ClientConfig>, Arc<Witness>) {
        let verifier = self.verifier.clone();
        let witness = Arc::new(Witness { provider: Arc::clone(&self.provider), verifier, seen: Mutex::default() });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>);
        let mut config = match self.identity.clone() {
            Some(identity) => builder.with_client_cert_resolver(identity as Arc<dyn ResolvesClientCert>),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        (Arc::new(config), witness)
    }

    /// Whether servers are shown a certificate.
    pub(super) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }
}

fn own_roots(path: PathBuf) -> Result<RootCertStore, CredentialsError> {
    let pem = match fs::read(&path) {
        Ok(pem) => pem,
        Err(error) => return Err(CredentialsError::RootsUnread { path, error }),
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if added > 0 { Ok(roots) } else { Err(CredentialsError::NoRoots { path }) }
}

fn system_roots() -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added > 0 { Ok(roots) } else { Err(CredentialsError::NoSystemRoots) }
}

/// Verifies as it must, and remembers what it was shown.
#[derive(Debug)]
pub(super) struct Witness {
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    /// The server's own certificate, if it has shown one.
    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        match &self.verifier {
            Some(verifier) => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
