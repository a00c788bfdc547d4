//! A certificate authority, files that it fills, and TLS in front of a plain server.

#![allow(clippy::unwrap_used, reason = "a test's peer fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use evenkeel_channel::Tls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// Signs certificates.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate for `name` and its key, in PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        self.issue_as(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    fn issue_as(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A server's side that asks for no certificate.
    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        self.config(self.issue(name), WebPkiClientVerifier::no_client_auth())
    }

    /// As [`server`](Self::server), with a certificate like this one.
    pub(crate) fn server_as(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        self.config(self.issue_as(params), WebPkiClientVerifier::no_client_auth())
    }

    /// A server's side that wants a certificate of `clients`.
    pub(crate) fn mutual_server(&self, name: &str, clients: &Self) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        self.config(self.issue(name), verifier)
    }

    #[allow(clippy::unused_self, reason = "it is the authority that has issued the certificate")]
    fn config(&self, (chain, key): (String, String), clients: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_client_cert_verifier(clients);
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// Speaks TLS for a plain server.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    config: watch::Sender<Arc<ServerConfig>>,
    accepted: watch::Receiver<u64>,
}

impl Front {
    pub(crate) async fn start(behind: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, configs) = watch::channel(config);
        let (accepting, accepted) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (mut configs, accepting) = (configs.clone(), accepting.clone());
                let acceptor = TlsAcceptor::from(Arc::clone(&configs.borrow_and_update()));
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(socket).await else { return };
                    accepting.send_modify(|accepted| *accepted += 1);
                    let mut far = TcpStream::connect(behind).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = configs.changed() => {}
                    }
                });
            }
        });
        Self { address, config, accepted }
    }

    /// Ends every connection; later ones get this configuration. Waits for the first of them.
    pub(crate) async fn restart(&self, config: Arc<ServerConfig>) {
        let mut accepted = self.accepted.clone();
        accepted.mark_unchanged();
        self.config.send_replace(config);
        tokio::time::timeout(Duration::from_secs(20), accepted.changed()).await.expect("in time").unwrap();
    }
}

/// The files of a client, removed at the end.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    pub(crate) fn tls(&self) -> Tls {
        let path = |name| self.folder.join(name);
        Tls::new().ca_file(path("ca.pem")).identity_files(path("tls.crt"), path("tls.key"))
    }

    pub(crate) fn write(&self, authority: &Authority) {
        let (chain, key) = authority.issue("client");
        for (name, text) in [("ca.pem", authority.pem()), ("tls.crt", chain), ("tls.key", key)] {
            std::fs::write(self.folder.join(name), text).unwrap();
        }
    }

    /// Leaves a file half written.
    pub(crate) fn spoil(&self) {
        std::fs::write(self.folder.join("tls.crt"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
