//! What one request leaves for the next: TLS sessions, idle connections.

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{
    HandshakeKind, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A self-signed certificate of `receiver.example`, good until the year 2120, and its key: made for these tests, and trusted
/// by nobody else.
pub(super) const CERTIFICATE: &str = "MIIBczCCARmgAwIBAgIBATAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBByZWNlaXZlci5leGFtcGxlMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAbMRkwFwYDVQQDDBByZWNlaXZlci5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHE0TtfvZGvC3nVkQZ7mSklaAkvAnJwKWTyO9GNVzJOTtQJvsjtDG3yFXhhn0VZaCUS+TmlVnyd6YdS2YSwRCgaNMMEowGwYDVR0RBBQwEoIQcmVjZWl2ZXIuZXhhbXBsZTAMBgNVHRMBAf8EAjAAMB0GA1UdDgQWBBTnIuZQ/NtjA1ZVpvcxn8poRtsYvjAKBggqhkjOPQQDAgNIADBFAiEA+Z63swyR2IYaSJlKLmqXeqQA23/aCYD3p8e4La5gBYcCIBPQAyEjeDvb2jitYQzENfapm9hQOXfB40R5r5nz6aR9";
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvXD0hM1aN0sJ39WXkkoBpd34nRMk28qlv7pV4J7P7lmhRANCAAQcTRO1+9ka8LedWRBnuZKSVoCS8CcnApZPI70Y1XMk5O1Am+yO0MbfIVeGGfRVloJRL5OaVWfJ3ph1LZhLBEKB";

/// A TLS receiver that closes each connection after one answer, and tells how each handshake went.
async fn tls_receiver(versions: &[&'static rustls::SupportedProtocolVersion]) -> (u16, mpsc::UnboundedReceiver<HandshakeKind>) {
    let [certificate, key] = [CERTIFICATE, KEY].map(|text| BASE64_STANDARD.decode(text).expect("base64"));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_protocol_versions(versions);
    let key = PrivateKeyDer::Pkcs8(key.into());
    let config = config.expect("ring speaks it").with_no_client_auth().with_single_cert(vec![certificate.into()], key).expect("a key");
    let (acceptor, (listener, address)) = (TlsAcceptor::from(Arc::new(config)), listen("127.0.0.1:0").await);
    let (kinds, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor.accept(stream).await.expect("a handshake");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n{}") {
                assert_ne!(stream.read_buf(&mut request).await.expect("a request"), 0);
            }
            kinds.send(stream.get_ref().1.handshake_kind().expect("a finished handshake")).expect("the test listens");
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.expect("an answer");
            // The client may be gone already.
            let _ = stream.shutdown().await;
        }
    });
    (address.port(), told)
}

#[tokio::test]
async fn a_second_connection_resumes_the_tls_session_of_the_first() {
    let certificate = CertificateDer::from(BASE64_STANDARD.decode(CERTIFICATE).expect("base64"));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (port, mut told) = tls_receiver(&[version]).await;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let connector = Connector::new(policy(&["127.0.0.1/32"]), Scripted::new(&[&["127.0.0.1"]]), None);
        let egress = Egress::with(connector, roots, IDLE_IN_ALL, PATIENCE);
        let url = format!("https://receiver.example:{port}/");
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let exchange = send(&egress, &url).await;
            assert_eq!((exchange.status_code, text(&exchange)), (200, ""));
            assert_eq!(told.recv().await, Some(expected), "{:?}", version.version);
        }
        let request = Request::post(url).body(Full::from("{}")).expect("a request");
        assert_eq!(egress.fresh.request(request).await.expect("an answer").status(), 200);
        assert_eq!(told.recv().await, Some(HandshakeKind::Resumed), "the client for fresh connections shares the sessions");
    }
}

#[tokio::test]
async fn only_so_many_idle_connections_are_kept() {
    const KEPT: usize = 3;
    let connector = Connector::new(policy(&["127.0.0.0/8"]), Scripted::new(&[&[]]), None);
    let egress = Egress::with(connector, RootCertStore::empty(), KEPT, PATIENCE);
    let mut urls = Vec::new();
    for _ in 0..4 * KEPT {
        urls.push(receiver(OK.to_vec()).await);
    }
    for url in &urls {
        assert_eq!(send(&egress, url).await.status_code, 200);
    }
    // A connection that is not kept is closed by a task of its own, a moment after its answer.
    let closing = async {
        while egress.open.get() > KEPT {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closing).await.expect("no more than so many stay open");
    assert_eq!(egress.open.get(), KEPT);
    let again = send(&egress, &urls[0]).await;
    assert_eq!((again.status_code, egress.busy.get()), (200, 0));
}
