//! The listening side: a certificate, its key and the clients' roots, which are read again while they are in use.

use std::{fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::{
    Pem, TlsError,
    material::{certificates, own_roots, private_key},
};

/// TLS of a listening side: what clients are shown, and what they have to show. Versions are 1.2 and 1.3, and the protocol
/// inside is HTTP/2 (ALPN `h2`).
///
/// **Rotation.** [`reload`](Self::reload) reads the files again, off the path of connections. New handshakes go by what
/// was good last; connections that are open stay open.
pub struct ServerTls {
    files: Files,
    /// What was last read, good or bad: each bad one is told once.
    seen: std::sync::Mutex<Option<Read>>,
    now: Arc<Now>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Files {
    chain: Pem,
    key: Pem,
    clients: Option<Pem>,
}

/// The files' text.
#[derive(PartialEq, Eq)]
struct Read {
    chain: Vec<u8>,
    key: Vec<u8>,
    clients: Option<Vec<u8>>,
}

/// What handshakes go by.
#[derive(Debug)]
struct Now(ArcSwap<Loaded>);

#[derive(Debug)]
struct Loaded {
    shown: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// Reads the PEM files: the chain, its own certificate first, its key, and where clients have to show a certificate
    /// (mTLS), those that sign theirs.
    ///
    /// # Errors
    ///
    /// [`TlsError`] where a file cannot be read or used.
    pub fn new(chain: impl Into<PathBuf>, key: impl Into<PathBuf>, clients: Option<PathBuf>) -> Result<Self, TlsError> {
        let files =
            Files { chain: Pem::File(chain.into()), key: Pem::File(key.into()), clients: clients.map(Pem::File) };
        let read = files.read()?;
        let now = Arc::new(Now(ArcSwap::from_pointee(files.load(&read)?)));
        let config = Arc::new(config(&now));
        Ok(Self { files, seen: std::sync::Mutex::new(Some(read)), now, config })
    }

    /// What sessions are made of: it stays the same, and goes by the newest good files.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Reads the files again; `true` where others are in force now. It blocks, as reading files does.
    ///
    /// # Errors
    ///
    /// [`TlsError`] where they cannot be read or used: what was good last stays in force. The same bad files are told once;
    /// until they change again, nothing is said of them.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = match self.files.read() {
            Ok(read) => read,
            Err(_) if seen.is_none() => return Ok(false),
            Err(error) => {
                *seen = None;
                return Err(error);
            }
        };
        if seen.as_ref() == Some(&read) {
            return Ok(false);
        }
        let loaded = self.files.load(&read);
        *seen = Some(read);
        self.now.0.store(Arc::new(loaded?));
        Ok(true)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<Read, TlsError> {
        let clients = self.clients.as_ref().map(Pem::read).transpose()?;
        Ok(Read { chain: self.chain.read()?, key: self.key.read()?, clients })
    }

    fn load(&self, read: &Read) -> Result<Loaded, TlsError> {
        let origin = self.chain.origin("the server's chain");
        let chain = certificates(&read.chain, &origin)?;
        let key = private_key(&read.key, &self.key.origin("the server's key"))?;
        let refused = |error: rustls::Error| TlsError::Identity { origin: origin.clone(), problem: error.to_string() };
        let shown = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(refused)?;
        let clients = match (&read.clients, &self.clients) {
            (Some(pem), Some(source)) => Some(verifier(pem, &source.origin("the clients' CA"))?),
            _ => None,
        };
        Ok(Loaded { shown: Arc::new(shown), clients })
    }
}

fn verifier(pem: &[u8], origin: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (roots, provider) = (Arc::new(own_roots(pem, origin)?), Arc::new(ring::default_provider()));
    WebPkiClientVerifier::builder_with_provider(roots, provider).build().map_err(|error| TlsError::Pem {
        origin: origin.to_owned(),
        expected: "certificate",
        problem: error.to_string(),
    })
}

fn config(now: &Arc<Now>) -> ServerConfig {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let asks = now.0.load().clients.is_some();
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(now) as _;
    let mut config = if asks {
        let mut config = builder.with_client_cert_verifier(Arc::clone(now) as _).with_cert_resolver(resolver);
        // A session that is taken up again shows no certificate, so that roots that are gone would hold on.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config
    } else {
        builder.with_no_client_auth().with_cert_resolver(resolver)
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

impl ResolvesServerCert for Now {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().shown))
    }
}

impl Now {
    fn clients(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let clients = self.0.load().clients.clone();
        clients.ok_or_else(|| rustls::Error::General("no roots for clients' certificates".to_owned()))
    }
}

/// Asked only where clients have to show certificates, which does not change while it listens.
impl ClientCertVerifier for Now {
    /// None: the list could not change with the files, and clients have one certificate as a rule.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clients()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients()?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients()?.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::{Secure, Tls};

    /// A certificate authority.
    struct Authority(String, Issuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            Self(params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
        }

        fn issue(&self, folder: &Path, name: &str) {
            let key = KeyPair::generate().unwrap();
            let signed = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.1).unwrap();
            std::fs::write(folder.join(format!("{name}.crt")), signed.pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
    }

    /// Both ends of a handshake in memory; what the client makes of it once the server has answered.
    async fn handshake(server: &ServerTls, client: Tls) -> Result<(), String> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(Arc::clone(server.config()));
        let accepting = tokio::spawn(async move { acceptor.accept(far).await.map(drop) });
        let handshake = Arc::new(Secure::new(client, "echo.test").unwrap()).next_handshake().await;
        let connector = TlsConnector::from(Arc::clone(&handshake.config));
        let connected = connector.connect(handshake.server_name.clone(), near).await;
        let stream = connected.map_err(|error| handshake.explain(&error))?;
        handshake.agreed(stream.get_ref().1.alpn_protocol())?;
        accepting.await.unwrap().map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn files_that_are_replaced_count_for_later_handshakes_and_bad_ones_do_not() {
        let folder = std::env::temp_dir().join(format!("evenkeel-server-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (old, new) = (Authority::new(), Authority::new());
        let at = |name: &str| folder.join(name);
        old.issue(&folder, "echo.test");
        old.issue(&folder, "client");
        std::fs::write(at("ca.pem"), &old.0).unwrap();
        let server = ServerTls::new(at("echo.test.crt"), at("echo.test.key"), Some(at("ca.pem"))).unwrap();
        let client =
            |trusts: &Authority| Tls::new().ca_pem(trusts.0.clone()).identity_files(at("client.crt"), at("client.key"));
        assert_eq!(handshake(&server, client(&old)).await, Ok(()));
        let nobody = handshake(&server, Tls::new().ca_pem(old.0.clone())).await;
        assert!(nobody.is_err(), "a client has to show a certificate");
        assert!(!server.reload().unwrap(), "nothing has changed");

        std::fs::write(at("echo.test.crt"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
        let why = server.reload().unwrap_err().to_string();
        assert!(why.contains("echo.test.crt"), "{why}");
        assert!(!server.reload().unwrap(), "told once");
        assert_eq!(handshake(&server, client(&old)).await, Ok(()));

        new.issue(&folder, "echo.test");
        assert!(server.reload().unwrap());
        let why = handshake(&server, client(&old)).await.unwrap_err();
        assert!(why.contains("none of the trusted roots"), "{why}");
        assert_eq!(handshake(&server, client(&new)).await, Ok(()));
        std::fs::write(at("ca.pem"), &new.0).unwrap();
        assert!(server.reload().unwrap());
        assert!(handshake(&server, client(&new)).await.is_err(), "who signed its certificate is trusted no more");
        new.issue(&folder, "client");
        assert_eq!(handshake(&server, client(&new)).await, Ok(()));

        std::fs::remove_file(at("ca.pem")).unwrap();
        assert!(server.reload().is_err() && !server.reload().unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
