//! What one request leaves for the next: DNS answers, TLS sessions, idle connections.

use base64::{Engine, prelude::BASE64_STANDARD};
use hickory_resolver::{
    Hosts,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    proto::{
        op::{Message, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{A, SOA},
        },
    },
};
use parking_lot::Mutex;
use rustls::{
    HandshakeKind, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{net::UdpSocket, sync::mpsc};
use tokio_rustls::TlsAcceptor;

use super::*;

/// For how long our name server's answers are good.
const TTL: Duration = Duration::from_secs(2);
/// A self-signed certificate of `receiver.example`, good until the year 2120, and its key: made for these tests, and trusted
/// by nobody else.
const CERTIFICATE: &str = "MIIBczCCARmgAwIBAgIBATAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBByZWNlaXZlci5leGFtcGxlMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAbMRkwFwYDVQQDDBByZWNlaXZlci5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHE0TtfvZGvC3nVkQZ7mSklaAkvAnJwKWTyO9GNVzJOTtQJvsjtDG3yFXhhn0VZaCUS+TmlVnyd6YdS2YSwRCgaNMMEowGwYDVR0RBBQwEoIQcmVjZWl2ZXIuZXhhbXBsZTAMBgNVHRMBAf8EAjAAMB0GA1UdDgQWBBTnIuZQ/NtjA1ZVpvcxn8poRtsYvjAKBggqhkjOPQQDAgNIADBFAiEA+Z63swyR2IYaSJlKLmqXeqQA23/aCYD3p8e4La5gBYcCIBPQAyEjeDvb2jitYQzENfapm9hQOXfB40R5r5nz6aR9";
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvXD0hM1aN0sJ39WXkkoBpd34nRMk28qlv7pV4J7P7lmhRANCAAQcTRO1+9ka8LedWRBnuZKSVoCS8CcnApZPI70Y1XMk5O1Am+yO0MbfIVeGGfRVloJRL5OaVWfJ3ph1LZhLBEKB";

/// A name server that knows one IPv4 address, or none, of every name, and counts how often it is asked for it.
#[derive(Default)]
struct NameServer {
    address: Mutex<Option<Ipv4Addr>>,
    asked: AtomicUsize,
}

impl NameServer {
    /// Starts it; returns it and names that are looked up there.
    async fn start(address: Option<Ipv4Addr>) -> (Arc<Self>, SystemNames) {
        let server = Arc::new(Self { address: Mutex::new(address), ..Self::default() });
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let mut way = ConnectionConfig::udp();
        way.port = socket.local_addr().expect("an address").port();
        let here = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![way]);
        let config = ResolverConfig::from_parts(None, vec![], vec![here]);
        tokio::spawn(Arc::clone(&server).serve(socket));
        (server, SystemNames::with(Hosts::default(), config, ResolverOpts::default()))
    }

    async fn serve(self: Arc<Self>, socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).expect("a query");
            socket.send_to(&self.answer(query).to_vec().expect("an answer"), from).await.expect("sent");
        }
    }

    fn answer(&self, query: Message) -> Message {
        let asked = query.queries[0].clone();
        let address = *self.address.lock();
        let mut answer = query.into_response();
        let is_v4 = asked.query_type() == RecordType::A;
        self.asked.fetch_add(usize::from(is_v4), Ordering::Relaxed);
        let ttl = u32::try_from(TTL.as_secs()).expect("short");
        if let Some(address) = address.filter(|_| is_v4) {
            answer.add_answer(Record::from_rdata(asked.name().clone(), ttl, RData::A(A(address))));
            return answer;
        }
        // "There is none, and ask again in an hour."
        let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 3600, 3600, 3600);
        answer.add_authority(Record::from_rdata(Name::root(), 3600, RData::SOA(soa)));
        if address.is_none() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Asks until the answer is this status; returns how long that took.
async fn until_answered(egress: &Egress, url: &str, is_done: impl Fn(&Exchange) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        if is_done(&send(egress, url).await) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A receiver that closes each connection after one answer.
async fn closing_receiver() -> u16 {
    let url = receiver(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    url.parse::<http::Uri>().expect("a URL").port_u16().expect("a port")
}

#[tokio::test]
async fn a_dns_answer_is_used_for_as_long_as_it_says_and_vetted_each_time() {
    let port = closing_receiver().await;
    let (server, names) = NameServer::start(Some(Ipv4Addr::LOCALHOST)).await;
    let egress = with_names(policy(&["127.0.0.1/32"]), Arc::new(names));
    let url = format!("http://receiver.example:{port}/");
    for _ in 0..3 {
        assert_eq!(send(&egress, &url).await.status_code, 200);
    }
    assert_eq!(server.asked(), 1, "three connections, one look-up");
    *server.address.lock() = Some(Ipv4Addr::new(127, 0, 0, 9));
    let moved = until_answered(&egress, &url, |exchange| text(exchange).starts_with("blocked: ")).await;
    assert!(moved <= TTL + Duration::from_secs(2), "{moved:?}");
    assert_eq!(server.asked(), 2, "the name is looked up again when its answer is too old");
    for _ in 0..3 {
        assert!(text(&send(&egress, &url).await).starts_with("blocked: "), "a remembered answer is vetted like a fresh one");
    }
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn a_name_that_did_not_exist_is_found_soon_after_it_does() {
    let port = closing_receiver().await;
    let (server, names) = NameServer::start(None).await;
    let egress = with_names(policy(&["127.0.0.1/32"]), Arc::new(names));
    let url = format!("http://receiver.example:{port}/");
    assert_eq!(text(&send(&egress, &url).await), "dns: the name receiver.example could not be resolved");
    let asked = server.asked();
    assert_eq!(send(&egress, &url).await.status_code, 0);
    assert_eq!(server.asked(), asked, "that there is none is remembered too");
    *server.address.lock() = Some(Ipv4Addr::LOCALHOST);
    let found = until_answered(&egress, &url, |exchange| exchange.status_code == 200).await;
    assert!(found < Duration::from_secs(7), "{found:?}, although the server said an hour");
}

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
        let connector = Connector::new(policy(&["127.0.0.1/32"]), Scripted::new(&[&["127.0.0.1"]]));
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
    let connector = Connector::new(policy(&["127.0.0.0/8"]), Scripted::new(&[&[]]));
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
