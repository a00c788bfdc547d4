//! Probes inside of TLS.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peers;

use std::{sync::Arc, time::Duration};

use evenkeel_checker::{
    Probe,
    balance::{CheckOutcome::Serving, FailureKind},
};
use evenkeel_transport::Tls;
use peers::{Peer, SERVING, ask, at, failure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority, and a server that it has signed, speaking these protocols.
fn authority_and_server(protocols: &[&[u8]]) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let named = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = named.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (ca, Arc::new(config))
}

/// A peer that speaks TLS, and inside it gRPC if that was agreed on, or else HTTP/1.1.
async fn peer(config: Arc<ServerConfig>) -> Peer {
    let acceptor = TlsAcceptor::from(config);
    Peer::start(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                let _ = stream.read(&mut [0; 1_024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                return;
            }
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let peers::Answer::Whole(head, _, trailers) = peers::grpc(SERVING, 0) else { unreachable!() };
                let mut stream = respond.send_response(head, false).unwrap();
                stream.send_data(SERVING.into(), false).unwrap();
                stream.send_trailers(trailers.headers().clone()).unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn every_kind_of_probe_speaks_tls() {
    let (ca, config) = authority_and_server(&[b"h2", b"http/1.1"]);
    let peer = peer(config).await;
    let tls = || Tls::new().ca_pem(ca.clone());
    for probe in [Probe::grpc(""), Probe::http("/"), Probe::tcp()] {
        let mut prober = at(probe.tls(tls()).unwrap(), peer.address);
        assert_eq!(ask(&mut prober).await, Serving, "{}", prober.kind());
    }
}

#[tokio::test]
async fn http_1_needs_no_protocol_to_be_agreed_on_and_grpc_does() {
    let (ca, config) = authority_and_server(&[]);
    let peer = peer(config).await;
    let tls = || Tls::new().ca_pem(ca.clone());
    assert_eq!(ask(&mut at(Probe::http("/").tls(tls()).unwrap(), peer.address)).await, Serving);
    let (kind, detail) = failure(&mut at(Probe::grpc("").tls(tls()).unwrap(), peer.address)).await;
    assert_eq!(kind, FailureKind::Tls);
    assert!(detail.contains("no protocol by ALPN"), "{detail}");
}

#[tokio::test]
async fn failed_handshakes_are_named() {
    let (ca, config) = authority_and_server(&[b"h2"]);
    let (stranger, _) = authority_and_server(&[]);
    let peer = peer(config).await;
    let probe = |ca: &str| Probe::grpc("").tls(Tls::new().ca_pem(ca.to_owned())).unwrap();
    let (kind, detail) = failure(&mut at(probe(&stranger), peer.address)).await;
    assert_eq!(kind, FailureKind::Tls);
    assert!(detail.contains("none of the trusted roots"), "{detail}");
    let (kind, detail) = failure(&mut at(probe(&ca).authority("other.test"), peer.address)).await;
    assert!(kind == FailureKind::Tls && detail.contains("other.test"), "{detail}");

    let plain = Peer::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let (kind, detail) = failure(&mut at(probe(&ca), plain.address)).await;
    assert!(kind == FailureKind::Tls && detail.contains("does not seem to speak TLS"), "{detail}");

    let silent = Peer::start(|_, stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let outcome = at(probe(&ca), silent.address).probe(Instant::now() + Duration::from_millis(100)).await;
    assert!(outcome.to_string().contains("no TLS handshake within the time-out"), "{outcome}");

    // TLS where plain text was meant.
    let (kind, detail) = failure(&mut at(Probe::grpc(""), peer.address)).await;
    assert!(matches!(kind, FailureKind::Protocol | FailureKind::Closed), "{kind:?}: {detail}");
}
