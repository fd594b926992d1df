//! The client against live receivers on loopback: whom it calls, how long it waits, how much it reads.

/// Which addresses a name has, and which of them is called.
mod dns;
/// What one request leaves for the next.
mod reuse;
/// The proxy and the authorities.
mod settings;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use domain::delivery::MAX_RESPONSE;
use futures::future::BoxFuture;
use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{names::Names, *};

const PATIENCE: Duration = Duration::from_secs(5);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn policy(allowed: &[&str]) -> EgressPolicy {
    EgressPolicy::new(allowed.iter().map(|net| net.parse::<IpNet>().expect("a network")).collect())
}

fn loopback(timeout: Duration) -> Egress {
    Egress::new(policy(&["127.0.0.0/8"]), &Authorities::default(), None, timeout)
}

fn with_names(policy: EgressPolicy, names: Arc<dyn Names>) -> Egress {
    Egress::with(Connector::new(policy, names, None), RootCertStore::empty(), IDLE_IN_ALL, PATIENCE)
}

async fn send(egress: &Egress, url: &str) -> Exchange {
    let uri = crate::request::uri(url).expect("a URL");
    let build = |_| Request::post(uri.clone()).header("webhook-id", "msg_1").body(Full::from("{}")).expect("a request");
    egress.send(Duration::MAX, build).await.expect("no proxy")
}

fn text(exchange: &Exchange) -> &str {
    std::str::from_utf8(&exchange.response).expect("text")
}

async fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Two listeners on one port.
async fn listen_on_both(one: IpAddr, other: IpAddr) -> (TcpListener, TcpListener, u16) {
    loop {
        let first = TcpListener::bind((one, 0)).await.expect("a listener");
        let port = first.local_addr().expect("an address").port();
        // The port may be taken on the other address: then another one will do.
        if let Ok(second) = TcpListener::bind((other, port)).await {
            return (first, second, port);
        }
    }
}

/// Reads one request of ours, whose body is two bytes; `false` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

/// A receiver that answers every request with `answer`.
async fn receiver(answer: Vec<u8>) -> String {
    let (listener, address) = listen("127.0.0.1:0").await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                while read_request(&mut stream).await {
                    // The client may close as soon as it has read enough.
                    let _ = stream.write_all(&answer).await;
                }
            });
        }
    });
    format!("http://{address}/hook")
}

/// Asserts that nobody has connected: the first connection that the listener sees is the one made here.
async fn assert_untouched(listener: &TcpListener) {
    let address = listener.local_addr().expect("an address");
    let ours = TcpStream::connect(address).await.expect("a connection");
    let (_, first) = listener.accept().await.expect("a connection");
    assert_eq!(first, ours.local_addr().expect("an address"), "somebody was here before");
}

/// Names with scripted answers, one per look-up; the last one is repeated.
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    look_ups: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |address: &&str| address.parse().expect("an address");
        let answers = answers.iter().map(|addresses| addresses.iter().map(parse).collect()).collect();
        Arc::new(Self { answers, look_ups: AtomicUsize::new(0) })
    }
}

impl Names for Scripted {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        let index = self.look_ups.fetch_add(1, Ordering::Relaxed).min(self.answers.len() - 1);
        Box::pin(std::future::ready(self.answers[index].clone()))
    }
}

#[tokio::test]
async fn with_nothing_allowed_no_notation_of_loopback_is_called() {
    let (v4, v6, port) = listen_on_both(Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()).await;
    let egress = Egress::new(policy(&[]), &Authorities::default(), None, PATIENCE);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
    ] {
        for scheme in ["http", "https"] {
            let exchange = send(&egress, &format!("{scheme}://{host}:{port}/hook")).await;
            assert_eq!(exchange.status_code, 0, "{scheme} {host}");
            assert!(text(&exchange).starts_with("blocked: "), "{scheme} {host}: {}", text(&exchange));
            assert!(text(&exchange).contains("POSTHASTE_EGRESS_ALLOW"));
            let remark = exchange.remark.expect("a remark");
            assert!(remark.contains("to allow it, add ") && remark.contains('/'), "{remark}");
        }
    }
    assert_untouched(&v4).await;
    assert_untouched(&v6).await;
}

#[tokio::test]
async fn a_name_with_a_public_and_a_private_address_is_blocked() {
    let (listener, address) = listen("127.0.0.1:0").await;
    for answer in [["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["2606:4700:4700::1111", "::ffff:127.0.0.1"]] {
        let egress = with_names(policy(&[]), Scripted::new(&[&answer]));
        let exchange = send(&egress, &format!("http://both.example:{}/", address.port())).await;
        assert!(text(&exchange).starts_with("blocked: both.example "), "{}", text(&exchange));
        assert!(!text(&exchange).contains("127.0.0.1"), "what a name resolves to is not the customer's to know");
        let remark = exchange.remark.expect("a remark");
        assert!(remark.contains("127.0.0.1 is in 127.0.0.0/8") && remark.contains("add 127.0.0.0/8 to POSTHASTE_EGRESS_ALLOW"), "{remark}");
    }
    assert_untouched(&listener).await;
}

#[tokio::test]
async fn the_connection_goes_to_the_vetted_address_even_if_the_name_is_rebound() {
    let (vetted, forbidden, port) = listen_on_both(Ipv4Addr::new(127, 0, 0, 2).into(), Ipv4Addr::LOCALHOST.into()).await;
    let names = Scripted::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let egress = with_names(policy(&["127.0.0.2/32"]), names.clone());
    let url = format!("http://rebound.example:{port}/");
    let answering = async {
        let (mut stream, _) = vetted.accept().await.expect("a connection");
        assert!(read_request(&mut stream).await);
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.expect("an answer");
    };
    let (exchange, ()) = tokio::join!(send(&egress, &url), answering);
    assert_eq!(exchange.status_code, 200);
    assert_eq!(names.look_ups.load(Ordering::Relaxed), 1);
    let exchange = send(&egress, &url).await;
    assert!(text(&exchange).starts_with("blocked: "), "{}", text(&exchange));
    assert_untouched(&forbidden).await;
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (elsewhere, address) = listen("127.0.0.1:0").await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let url = receiver(format!("HTTP/1.1 {status}\r\nlocation: http://{address}/\r\ncontent-length: 0\r\n\r\n").into_bytes()).await;
        let exchange = send(&loopback(PATIENCE), &url).await;
        assert_eq!(exchange.status_code.to_string(), status[..3]);
    }
    assert_untouched(&elsewhere).await;
}

#[tokio::test]
async fn what_the_operator_allows_is_called() {
    let url = receiver(OK.to_vec()).await;
    let exchange = send(&loopback(PATIENCE), &url).await;
    assert_eq!((exchange.status_code, text(&exchange)), (200, "ok"));
    assert!(exchange.is_success());
}

#[tokio::test]
async fn a_large_payload_arrives_whole() {
    let (listener, address) = listen("127.0.0.1:0").await;
    let payload = Bytes::from(vec![7; 1 << 20]);
    let receiving = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut received = Vec::new();
        while !received.ends_with(&payload) {
            assert_ne!(stream.read_buf(&mut received).await.expect("bytes"), 0);
        }
        stream.write_all(OK).await.expect("an answer");
        stream
    };
    let egress = loopback(PATIENCE);
    let build = |_| Request::post(format!("http://{address}/")).body(Full::new(payload.clone())).expect("a request");
    let (exchange, _open) = tokio::join!(egress.send(Duration::MAX, build), receiving);
    let exchange = exchange.expect("no proxy");
    assert_eq!(exchange.status_code, 200);
}

#[tokio::test]
async fn a_large_body_is_cut_and_every_byte_survives() {
    let mut large = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    large.extend((0..1_000_000_u32).map(|index| u8::try_from(index % 256).expect("a byte")));
    let egress = loopback(PATIENCE);
    let url = receiver(large).await;
    let exchange = send(&egress, &url).await;
    assert_eq!((exchange.status_code, exchange.response.len()), (200, MAX_RESPONSE));
    assert_eq!(exchange.response[..4], [0, 1, 2, 3]);

    // A receiver that never sends the rest is not waited for.
    let stalled = receiver([b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".as_slice(), &[b'x'; MAX_RESPONSE]].concat()).await;
    let exchange = send(&egress, &stalled).await;
    assert_eq!((exchange.status_code, exchange.response.len()), (200, MAX_RESPONSE));

    let nul = receiver(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\n\0\xFF\0x".to_vec()).await;
    let exchange = send(&egress, &nul).await;
    assert_eq!((exchange.status_code, exchange.response.as_ref()), (500, b"\0\xFF\0x".as_slice()));
}

#[tokio::test]
async fn a_kept_alive_connection_that_the_receiver_closed_is_replaced_once() {
    let (listener, address) = listen("127.0.0.1:0").await;
    let receiving = async {
        let (mut first, _) = listener.accept().await.expect("a connection");
        assert!(read_request(&mut first).await);
        first.write_all(OK).await.expect("an answer");
        assert!(read_request(&mut first).await, "the connection is used again");
        drop(first);
        let (mut second, _) = listener.accept().await.expect("a fresh connection");
        assert!(read_request(&mut second).await);
        second.write_all(OK).await.expect("an answer");
        second
    };
    let egress = loopback(PATIENCE);
    let url = format!("http://{address}/");
    let sending = async {
        let first = send(&egress, &url).await;
        (first, send(&egress, &url).await)
    };
    let both = async { tokio::join!(sending, receiving) };
    let ((first, second), _open) = tokio::time::timeout(PATIENCE, both).await.expect("a fresh connection in time");
    assert_eq!((first.status_code, second.status_code), (200, 200));
    assert_eq!((first.is_resent, second.is_resent), (false, true));
}

#[tokio::test]
async fn a_first_connection_that_the_receiver_closes_is_a_failure() {
    let (listener, address) = listen("127.0.0.1:0").await;
    let receiving = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        assert!(read_request(&mut stream).await);
    };
    let egress = loopback(PATIENCE);
    let url = format!("http://{address}/");
    let (exchange, ()) = tokio::join!(send(&egress, &url), receiving);
    assert_eq!((exchange.status_code, text(&exchange)), (0, "connection failed: the receiver closed it before it had answered"));
    assert!(!exchange.is_resent);
    assert_untouched(&listener).await;
}

#[tokio::test]
async fn failures_are_plain_sentences() {
    let (listener, address) = listen("127.0.0.1:0").await;
    drop(listener);
    let egress = loopback(PATIENCE);
    assert_eq!(text(&send(&egress, &format!("http://{address}/")).await), "connection failed: refused");

    let (tls, address) = listen("127.0.0.1:0").await;
    tokio::spawn(async move {
        let (mut stream, _) = tls.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("no TLS");
    });
    let exchange = send(&egress, &format!("https://{address}/")).await;
    assert!(text(&exchange).starts_with("tls: "), "{}", text(&exchange));

    let garbage = receiver(b"hello\r\n\r\n".to_vec()).await;
    assert!(text(&send(&egress, &garbage).await).starts_with("connection failed: the answer is not HTTP"));

    let endless = receiver([b"HTTP/1.1 200 OK\r\nx-large: ".as_slice(), &vec![b'x'; 2 * READ_AHEAD]].concat()).await;
    assert_eq!(text(&send(&egress, &endless).await), "connection failed: the answer is not HTTP/1.1, or its headers are too large");

    let nameless = with_names(policy(&[]), Scripted::new(&[&[]]));
    assert_eq!(text(&send(&nameless, "http://gone.example/").await), "dns: the name gone.example could not be resolved");
}

#[test]
fn retry_after_is_read_as_seconds_or_a_date() {
    let headers = |retry: &str, date: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry.parse().expect("a value"));
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("a value"));
        }
        headers
    };
    let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:00 GMT").expect("a date");
    let asked = |retry, date| answer::retry_after(&headers(retry, date), now);
    assert_eq!(asked("120", None), Some(Duration::from_mins(2)));
    assert_eq!(asked("Fri, 31 Dec 1999 23:59:30 GMT", None), Some(Duration::from_secs(30)));
    assert_eq!(asked("Fri, 31 Dec 1999 23:59:30 GMT", Some("Fri, 31 Dec 1999 23:59:20 GMT")), Some(Duration::from_secs(10)));
    for nonsense in ["", "-5", "soon", "Fri, 31 Dec 1999 23:58:00 GMT"] {
        assert_eq!(asked(nonsense, None), None, "{nonsense}");
    }
}
