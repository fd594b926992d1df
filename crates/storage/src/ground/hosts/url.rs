//! A database URL that names several hosts, taken apart into one URL for each.

use ::url::form_urlencoded::{byte_serialize, parse};

use super::Wanted;

/// What a URL must begin with.
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];
/// In the place of the host that a URL names elsewhere.
const ELSEWHERE: &str = "localhost";

/// One URL for each host, in order, and what a server must be like. Hosts and ports are read as Postgres' own clients read them: lists
/// in the usual place (`a:5432,b:5433`) or in the query (`host=a,b&port=5432,5433`), which wins.
pub(super) fn split(url: &str) -> Result<(Vec<String>, Wanted), &'static str> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| SCHEMES.contains(scheme)).ok_or("it is no postgres:// URL")?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_at(before.find('/').unwrap_or(before.len()));
    let (user, list) = authority.rsplit_once('@').map_or(("", authority), |(user, list)| (user, list));
    let query = Query::read(query)?;
    let hosts = query.hosts(list)?;
    if hosts.is_empty() && user.is_empty() {
        // The client knows where: by `PGHOST`, or where its socket usually is.
        return Ok((vec![format!("{scheme}://{path}?{}", query.others)], query.wanted));
    }
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let one = |place: &str| format!("{scheme}://{user}{ELSEWHERE}{path}?{}{place}", query.others);
    if hosts.is_empty() {
        return Ok((vec![one("")], query.wanted));
    }
    let of_host = |(host, port): &(String, Option<u16>)| {
        let host: String = byte_serialize(host.as_bytes()).collect();
        one(&port.map_or_else(|| format!("host={host}"), |port| format!("host={host}&port={port}")))
    };
    Ok((hosts.iter().map(of_host).collect(), query.wanted))
}

/// The parameters of a URL.
struct Query {
    hosts: Option<String>,
    ports: Option<String>,
    wanted: Wanted,
    /// Those that are the client's business, each with a `&` behind it.
    others: String,
}

impl Query {
    fn read(query: &str) -> Result<Self, &'static str> {
        let mut read = Self { hosts: None, ports: None, wanted: Wanted::ReadWrite, others: String::new() };
        for (name, value) in parse(query.as_bytes()) {
            match &*name {
                "host" | "hostaddr" => read.hosts = Some(value.into_owned()),
                "port" => read.ports = Some(value.into_owned()),
                "target_session_attrs" => {
                    read.wanted = match &*value {
                        "any" => Wanted::Any,
                        "read-write" => Wanted::ReadWrite,
                        "primary" => Wanted::Primary,
                        _ => return Err("its target_session_attrs is none of `read-write`, `primary` and `any`"),
                    }
                }
                _ => {
                    read.others.extend(byte_serialize(name.as_bytes()));
                    read.others.push('=');
                    read.others.extend(byte_serialize(value.as_bytes()));
                    read.others.push('&');
                }
            }
        }
        Ok(read)
    }

    /// The hosts, and the ports of those that have one of their own.
    fn hosts(&self, list: &str) -> Result<Vec<(String, Option<u16>)>, &'static str> {
        let mut hosts = if list.is_empty() { Vec::new() } else { list.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()? };
        if let Some(named) = self.hosts.as_deref().filter(|named| !named.is_empty()) {
            let ports: Vec<_> = hosts.iter().map(|(_, port)| *port).collect();
            hosts = named.split(',').map(|host| (host.to_owned(), None)).collect();
            // As it has always been: `postgres://ignored:5433/database?host=/folder/of/the/socket`.
            if ports.len() == 1 || ports.len() == hosts.len() {
                hosts.iter_mut().zip(ports.iter().cycle()).for_each(|(host, port)| host.1 = *port);
            }
        }
        if let Some(ports) = self.ports.as_deref().filter(|ports| !ports.is_empty()) {
            let ports = ports.split(',').map(port).collect::<Result<Vec<_>, _>>()?;
            if hosts.is_empty() {
                hosts.push((ELSEWHERE.to_owned(), None));
            }
            if ports.len() != 1 && ports.len() != hosts.len() {
                return Err("it names more ports than hosts, or fewer");
            }
            hosts.iter_mut().zip(ports.iter().cycle()).for_each(|(host, port)| host.1 = Some(*port));
        }
        if hosts.iter().any(|(host, _)| host.is_empty()) {
            return Err("one of its hosts has no name");
        }
        Ok(hosts)
    }
}

/// `name`, `name:port`, `[address]` or `[address]:port`.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']').ok_or("one of its addresses lacks a `]`")?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some("") => None,
        Some(text) => Some(port(text)?),
        None if rest.is_empty() => None,
        None => return Err("one of its hosts cannot be read"),
    };
    // `+` is itself here, unlike in a query.
    let decoded = parse(format!("={}", host.replace('+', "%2B")).as_bytes()).next().map(|(_, host)| host.into_owned());
    Ok((decoded.unwrap_or_default(), port))
}

fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().ok().filter(|port| *port > 0).ok_or("one of its ports is no number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    /// Where a URL leads, as the client understands it.
    fn places(url: &str) -> Vec<String> {
        let (urls, _) = split(url).unwrap_or_else(|why| panic!("{url}: {why}"));
        let read = urls.iter().map(|url| url.parse::<PgConnectOptions>().expect("the client can read it"));
        read.map(|options| {
            assert_eq!((options.get_username(), options.get_database()), ("u@x", Some("my/db")), "{url}");
            super::super::place(&options)
        })
        .collect()
    }

    #[test]
    fn hosts_are_read_as_other_clients_read_them() {
        let cases = [
            ("postgres://u%40x:p%2Fw@a:5433/my%2Fdb", vec!["a:5433"]),
            ("postgresql://u%40x@a:5432,b:5433/my%2Fdb?target_session_attrs=read-write&sslmode=disable", vec!["a:5432", "b:5433"]),
            ("postgres://u%40x@[::1]:5433,10.0.0.1:5434/my%2Fdb", vec!["::1:5433", "10.0.0.1:5434"]),
            ("postgres://u%40x@a,b,c:7000/my%2Fdb?port=6000", vec!["a:6000", "b:6000", "c:6000"]),
            ("postgres://u%40x@/my%2Fdb?host=a,b&port=5433,5434", vec!["a:5433", "b:5434"]),
            ("postgres:///my%2Fdb?user=u%40x&host=/one,/two&port=6000", vec!["/one/.s.PGSQL.6000", "/two/.s.PGSQL.6000"]),
            ("postgres://u%40x@ignored:6000/my%2Fdb?host=%2Ftmp", vec!["/tmp/.s.PGSQL.6000"]),
            ("postgres://u%40x@%2Ftmp:6000/my%2Fdb", vec!["/tmp/.s.PGSQL.6000"]),
        ];
        for (url, expected) in cases {
            assert_eq!(places(url), expected, "{url}");
        }
    }

    #[test]
    fn what_a_server_must_be_like_is_read() {
        let wanted = |url: &str| split(url).map(|(_, wanted)| wanted);
        assert_eq!(wanted("postgres://a,b/x"), Ok(Wanted::ReadWrite));
        assert_eq!(wanted("postgres://a,b/x?target_session_attrs=read-write"), Ok(Wanted::ReadWrite));
        assert_eq!(wanted("postgres://a,b/x?target_session_attrs=primary"), Ok(Wanted::Primary));
        assert_eq!(wanted("postgres://a,b/x?target_session_attrs=any"), Ok(Wanted::Any));
        for attribute in ["standby", "read-only", "prefer-standby", "Primary", ""] {
            let refusal = wanted(&format!("postgres://a,b/x?target_session_attrs={attribute}")).expect_err("it is refused");
            assert!(refusal.contains("target_session_attrs"), "{refusal}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let urls = [
            "mysql://a/x",
            "a:5432/x",
            "postgres://a:x/y",
            "postgres://a:0/x",
            "postgres://a:70000/x",
            "postgres://a,,b/x",
            "postgres://a,b/x?port=1,2,3",
            "postgres://[::1/x",
            "postgres://[::1]5/x",
            "postgres://a/x?port=a",
        ];
        for url in urls {
            assert!(split(url).is_err(), "{url}");
        }
    }
}
