//! Both sides of TLS for tests.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// What both sides need to shake hands.
pub(crate) struct Pair {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

/// Sides that offer these protocols by ALPN.
pub(crate) fn pair(server_protocols: &[&str], client_protocols: &[&str]) -> Pair {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let names = |protocols: &[&str]| protocols.iter().map(|name| name.as_bytes().to_vec()).collect();

    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let mut server = builder.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    server.alpn_protocols = names(server_protocols);

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = names(client_protocols);
    Pair { server: Arc::new(server), client: Arc::new(client) }
}

pub(crate) fn localhost() -> ServerName<'static> {
    "localhost".try_into().unwrap()
}
