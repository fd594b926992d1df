//! What the operator may write as a proxy and as authorities, and what of it is shown.

use super::{reuse::CERTIFICATE, *};

#[test]
fn a_proxy_is_a_scheme_a_host_and_maybe_credentials() {
    let shown = |text: &str| Proxy::parse(text).map(|proxy| format!("{proxy:?}"));
    let expected = |kind: &str, host: &str, port: u16, has_credentials: bool| {
        Ok(format!("Proxy {{ kind: {kind}, host: \"{host}\", port: {port}, has_credentials: {has_credentials} }}"))
    };
    assert_eq!(shown("http://proxy.example.com:3128"), expected("Connect", "proxy.example.com", 3128, false));
    assert_eq!(shown("http://my_proxy"), expected("Connect", "my_proxy", 80, false));
    assert_eq!(shown("http://user:secret@10.0.0.1:8080/"), expected("Connect", "10.0.0.1", 8080, true));
    assert_eq!(shown("https://user:secret@proxy.example.com"), expected("ConnectTls", "proxy.example.com", 443, true));
    assert_eq!(shown("socks5://only-a-name@proxy"), expected("Socks5", "proxy", 1080, true));
    assert_eq!(shown("socks5://[fd00::1]:9050"), expected("Socks5", "fd00::1", 9050, false));
    for text in [
        "",
        "proxy.example.com:3128",
        "10.0.0.1:3128",
        "ftp://proxy.example.com",
        "socks4://proxy.example.com",
        "socks5h://proxy.example.com",
        "http://",
        "socks5://",
        "http://proxy.example.com/path",
        "http://proxy.example.com/?a=b",
        "http://proxy.example.com/#here",
    ] {
        assert_eq!(shown(text), Err(InvalidProxy::Form), "{text}");
    }
    for (length, is_right) in [(196, true), (197, false)] {
        let text = format!("socks5://user:{}@proxy", "x".repeat(length));
        assert_eq!(shown(&text).is_ok(), is_right, "{length}");
    }
    assert_eq!(shown("http://user:%FF@proxy"), Err(InvalidProxy::Credentials));
}

#[test]
fn authorities_are_all_the_certificates_of_a_file() {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{CERTIFICATE}\n-----END CERTIFICATE-----\n");
    let one = Authorities::from_pem(pem.as_bytes()).expect("a certificate");
    let two = Authorities::from_pem(format!("Ours:\r\n{pem}\n# and once more\n{pem}").as_bytes()).expect("two certificates");
    let none = Authorities::default().roots().len();
    assert_eq!([one.roots().len(), two.roots().len()], [none + 1, none + 2], "beside those that everybody trusts");
    assert!(none >= webpki_roots::TLS_SERVER_ROOTS.len());
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (text, refusal) in [
        (String::new(), InvalidAuthorities::Empty),
        ("no certificate".to_owned(), InvalidAuthorities::Empty),
        (key.to_owned(), InvalidAuthorities::Empty),
        (pem.replace("MIIBczCC", "MIIBczCD"), InvalidAuthorities::Certificate(1)),
        (format!("{pem}{}", pem.replace("MIIB", "????")), InvalidAuthorities::Certificate(2)),
        (format!("{pem}-----BEGIN CERTIFICATE-----\nMIIB"), InvalidAuthorities::Certificate(2)),
    ] {
        assert_eq!(Authorities::from_pem(text.as_bytes()), Err(refusal), "{text}");
    }
}
