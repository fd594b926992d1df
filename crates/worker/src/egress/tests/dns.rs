//! Names: what the system's resolver would find is found, and nobody waits for a name server that is silent.

use std::{collections::HashMap, net::Ipv6Addr};

use hickory_resolver::{
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    proto::{
        op::{Message, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{A, AAAA, SOA},
        },
    },
};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::*;
use crate::egress::{
    names::{HostsFile, SystemNames},
    race::race,
};

/// For how long our name server's answers are good.
const TTL: Duration = Duration::from_secs(2);

/// What our name server does with a question.
#[derive(Clone, Copy)]
enum Does {
    /// Tells this address, and that there is none of the other family.
    Tell(IpAddr),
    /// Says nothing at all when it is asked for this family, and tells the address of the other one.
    Ignore(RecordType, IpAddr),
    /// Never answers.
    Hang,
}

/// A name server that knows a few names, and remembers what it was asked.
#[derive(Default)]
struct NameServer {
    zone: Mutex<HashMap<String, Does>>,
    asked: Mutex<Vec<(String, RecordType)>>,
}

impl NameServer {
    /// Starts it; returns it and names that are looked up there, completed with `search`.
    async fn start(zone: &[(&str, Does)], search: &[&str]) -> (Arc<Self>, SystemNames) {
        let zone = zone.iter().map(|(name, does)| ((*name).to_owned(), *does)).collect();
        let server = Arc::new(Self { zone: Mutex::new(zone), ..Self::default() });
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let mut way = ConnectionConfig::udp();
        way.port = socket.local_addr().expect("an address").port();
        let here = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![way]);
        let search = search.iter().map(|domain| Name::from_ascii(domain).expect("a domain")).collect();
        let config = ResolverConfig::from_parts(None, search, vec![here]);
        tokio::spawn(Arc::clone(&server).serve(socket));
        (server, SystemNames::with(HostsFile::parse("127.0.0.7 in_hosts.example other\n"), config, ResolverOpts::default()))
    }

    async fn serve(self: Arc<Self>, socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).expect("a query");
            if let Some(answer) = self.answer(query) {
                socket.send_to(&answer.to_vec().expect("an answer"), from).await.expect("sent");
            }
        }
    }

    fn answer(&self, query: Message) -> Option<Message> {
        let asked = query.queries[0].clone();
        let kind = asked.query_type();
        let name = asked.name().to_ascii().to_lowercase();
        self.asked.lock().push((name.clone(), kind));
        let does = self.zone.lock().get(&name).copied();
        let address = match does {
            Some(Does::Hang) => return None,
            Some(Does::Ignore(ignored, _)) if ignored == kind => return None,
            Some(Does::Tell(address) | Does::Ignore(_, address)) => Some(address),
            None => None,
        };
        let mut answer = query.into_response();
        let data = match (address, kind) {
            (Some(IpAddr::V4(address)), RecordType::A) => Some(RData::A(A(address))),
            (Some(IpAddr::V6(address)), RecordType::AAAA) => Some(RData::AAAA(AAAA(address))),
            _ => None,
        };
        if let Some(data) = data {
            let ttl = u32::try_from(TTL.as_secs()).expect("short");
            answer.add_answer(Record::from_rdata(asked.name().clone(), ttl, data));
            return Some(answer);
        }
        // "There is none, and ask again in an hour."
        let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 3600, 3600, 3600);
        answer.add_authority(Record::from_rdata(Name::root(), 3600, RData::SOA(soa)));
        if does.is_none() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        Some(answer)
    }

    /// How often it was asked for IPv4 addresses.
    fn asked(&self) -> usize {
        self.asked.lock().iter().filter(|(_, kind)| *kind == RecordType::A).count()
    }

    fn now_tells(&self, name: &str, address: &str) {
        self.zone.lock().insert(name.into(), tell(address));
    }
}

fn tell(address: &str) -> Does {
    Does::Tell(address.parse().expect("an address"))
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
    let (server, names) = NameServer::start(&[("receiver.example.", tell("127.0.0.1"))], &[]).await;
    let egress = with_names(policy(&["127.0.0.1/32"]), Arc::new(names));
    let url = format!("http://receiver.example:{port}/");
    for _ in 0..3 {
        assert_eq!(send(&egress, &url).await.status_code, 200);
    }
    assert_eq!(server.asked(), 1, "three connections, one look-up");
    server.now_tells("receiver.example.", "127.0.0.9");
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
    let (server, names) = NameServer::start(&[], &[]).await;
    let egress = with_names(policy(&["127.0.0.1/32"]), Arc::new(names));
    let url = format!("http://receiver.example:{port}/");
    assert_eq!(text(&send(&egress, &url).await), "dns: the name receiver.example could not be resolved");
    let asked = server.asked();
    assert_eq!(send(&egress, &url).await.status_code, 0);
    assert_eq!(server.asked(), asked, "that there is none is remembered too");
    server.now_tells("receiver.example.", "127.0.0.1");
    let found = until_answered(&egress, &url, |exchange| exchange.status_code == 200).await;
    assert!(found < Duration::from_secs(9), "{found:?}, although the server said an hour");
}

#[tokio::test]
async fn names_of_containers_are_completed_and_looked_up_as_the_system_does() {
    let zone = [
        ("my_service.apps.example.", tell("127.0.0.2")),
        ("my_service.", tell("127.0.0.3")),
        ("worker-1_a.", tell("127.0.0.4")),
        ("api.team_x.apps.example.", tell("127.0.0.5")),
        ("api.team_x.", tell("127.0.0.6")),
        ("v6_only.", tell("fd00::6")),
        ("split.one.example.", tell("127.0.0.8")),
        ("split.two.example.", tell("fd00::8")),
        // What a URL may not have in its host a name of the hosts file may.
        ("other.", tell("127.0.0.9")),
    ];
    let (server, names) = NameServer::start(&zone, &["apps.example.", "one.example.", "two.example."]).await;
    for (host, expected) in [
        ("my_service", "127.0.0.2"),
        ("my_service.", "127.0.0.3"),
        ("worker-1_a", "127.0.0.4"),
        ("api.team_x", "127.0.0.6"),
        ("v6_only", "fd00::6"),
        ("split", "127.0.0.8"),
        ("in_hosts.example", "127.0.0.7"),
        ("OTHER", "127.0.0.7"),
        ("my_service.localhost", "127.0.0.1"),
    ] {
        let found = names.addresses(host).await;
        let wanted: IpAddr = expected.parse().expect("an address");
        assert_eq!(found.first(), Some(&wanted), "{host}: {found:?}");
        assert!(found.len() == 1 || host.ends_with("localhost"), "{host}: one domain's addresses and no other's: {found:?}");
    }
    assert!(!server.asked.lock().iter().any(|(name, _)| name.starts_with("other") || name.starts_with("in_hosts")));
}

/// `127.1` stands for any name that only the system's resolver knows: no name server has it, and the C library takes it.
#[tokio::test]
async fn what_only_the_system_knows_is_found_and_vetted() {
    let port = closing_receiver().await;
    let (server, names) = NameServer::start(&[("hanging.", Does::Hang)], &[]).await;
    assert_eq!(names.addresses("127.1").await, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    assert!(server.asked() > 0, "name servers are asked first");
    let names = Arc::new(names);
    let uri = http::Uri::try_from(format!("http://127.1:{port}/")).expect("a URI");
    for (allowed, status) in [(&["127.0.0.0/8"][..], 200), (&[], 0)] {
        let egress = with_names(policy(allowed), names.clone());
        let exchange =
            egress.send(Duration::MAX, |_| Request::post(uri.clone()).body(Full::from("{}")).expect("a request")).await.expect("no proxy");
        assert_eq!(exchange.status_code, status, "{}", text(&exchange));
    }
    let all = futures::future::join_all((0..200).map(|_| names.addresses("127.2"))).await;
    assert!(all.iter().all(|found| *found == [IpAddr::from(Ipv4Addr::new(127, 0, 0, 2))]), "two hundred that ask at once");
}

#[tokio::test]
async fn a_name_server_that_is_silent_about_one_family_keeps_nobody_from_the_other() {
    let port = closing_receiver().await;
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let zone = [("half.example.", Does::Ignore(RecordType::AAAA, v4)), ("six.example.", Does::Ignore(RecordType::A, v6))];
    let (_server, names) = NameServer::start(&zone, &[]).await;
    let begun = Instant::now();
    assert_eq!(names.addresses("half.example").await, [v4]);
    assert_eq!(names.addresses("six.example").await, [v6]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let egress = with_names(policy(&["127.0.0.1/32"]), Arc::new(names));
    assert_eq!(send(&egress, &format!("http://half.example:{port}/")).await.status_code, 200);
}

#[tokio::test]
async fn a_silent_address_gives_way_to_the_next_and_the_first_connection_wins() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<SocketAddr>>();
    let tried = Mutex::new(Vec::new());
    let connect = |address: SocketAddr| {
        tried.lock().push(address.to_string());
        async move {
            match address.port() {
                1 => std::future::pending().await,
                2 => Err(Failure::Connection(failure::REFUSED)),
                port => Ok(port),
            }
        }
    };
    let all = addresses(&["[fd00::1]:1", "[fd00::2]:2", "10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3", "10.0.0.4:4"]);
    assert_eq!(race(&all, connect).await, Ok(3));
    let order = ["10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:2", "[fd00::2]:2", "10.0.0.3:3"];
    assert_eq!(*tried.lock(), order, "the families in turn, and no further than to the first that connects");
    let refused = race(&addresses(&["10.0.0.2:2", "[fd00::2]:2"]), connect).await;
    assert_eq!(refused, Err(Failure::Connection(failure::REFUSED)));
    let last = addresses(&["10.0.0.1:1", "10.0.0.2:2"]);
    let forever = race(&last, connect);
    assert!(tokio::time::timeout(Duration::from_millis(600), forever).await.is_err(), "one that may still answer is waited for");
}
