//! A whole request of the load, of which only some bytes change from one to the next.

use std::net::SocketAddr;

use domain::mac::{Encoding, Hash, SharedSecret};

use crate::{
    receiver::BEFORE_NUMBER,
    scenario::{FILTERS, Form, Keys},
    wire::{self, DIGITS},
};

/// The event type that one endpoint of the application asks for.
pub(crate) const SENT: &str = "bench.sent";
/// The event type that the endpoint which never answers asks for as well.
pub(crate) const BOTH: &str = "bench.both";
/// The header in which an event is signed.
pub(crate) const SIGNATURE_HEADER: &str = "x-bench-signature";
/// What it is signed with.
pub(crate) const SIGNATURE_SECRET: &str = "the secret of the benchmark's source";

/// Stands for the message's number in a template; as long as the number is.
const NUMBER: &str = "@@@@@@@@@@";
/// Stands for the number of the post.
const POST: &str = "#";
/// Stands for the endpoint whose filter matches.
const WANTED: &str = "%%";
/// How many hexadecimal digits an HMAC-SHA256 has.
const SIGNATURE: usize = 64;

/// What is sent, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The servers, between which the connections are split.
    pub(crate) servers: Vec<SocketAddr>,
    /// The path of the request.
    pub(crate) path: String,
    /// A bearer token.
    pub(crate) token: String,
    /// Distinguishes this run's keys from those of all others.
    pub(crate) run: u64,
    /// Bytes of a payload.
    pub(crate) payload: usize,
    /// Connections, each with one request at a time.
    pub(crate) concurrency: usize,
    /// Messages a second; none is as fast as they are answered.
    pub(crate) rate: Option<u64>,
    /// What is posted.
    pub(crate) form: Form,
    /// Which keys the requests carry.
    pub(crate) keys: Keys,
    /// Whether every second message is of the type [`BOTH`].
    pub(crate) has_both: bool,
}

/// A whole request.
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    numbers: Vec<usize>,
    posts: Vec<usize>,
    event_type: Option<usize>,
    wanted: Option<usize>,
    signature: Option<usize>,
    body: usize,
    secret: SharedSecret,
}

impl Template {
    pub(crate) fn new(load: &Load, server: SocketAddr) -> Self {
        let body = body(load);
        let particular = match (load.form, load.keys) {
            // Of a service that has no token and knows no keys of requests: they are in what it sends.
            (Form::Event, _) => format!("{SIGNATURE_HEADER}: {}\r\n", "0".repeat(SIGNATURE)),
            (_, Keys::None) => authorization(load),
            (_, Keys::Fresh | Keys::One | Keys::Twice) => {
                format!("{}idempotency-key: {:016x}-{NUMBER}-{POST}\r\n", authorization(load), load.run)
            }
        };
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/json\r\n{particular}content-length: {}\r\n\r\n",
            load.path,
            body.len()
        );
        let text = format!("{head}{body}");
        let all = |mark: &str| text.match_indices(mark).map(|(at, _)| at).collect::<Vec<_>>();
        let (numbers, posts) = (all(NUMBER), all(POST));
        let event_type = text.find(SENT);
        let wanted = Some(WANTED).filter(|_| load.form == Form::Filtered).and_then(|mark| text.find(mark));
        let signature = head.find(SIGNATURE_HEADER).map(|at| at + SIGNATURE_HEADER.len() + ": ".len());
        let secret = SharedSecret::new(SIGNATURE_SECRET);
        Self { numbers, posts, event_type, wanted, signature, body: head.len(), secret, bytes: text.into_bytes() }
    }

    /// Makes it the request for this message.
    pub(crate) fn fill(&mut self, number: u64, post: u8, is_for_both: bool) {
        for at in &self.numbers {
            wire::write_number(&mut self.bytes[*at..*at + DIGITS], number);
        }
        for at in &self.posts {
            self.bytes[*at] = b'0' + post;
        }
        if let Some(at) = self.event_type {
            let event_type = if is_for_both { BOTH } else { SENT };
            self.bytes[at..at + event_type.len()].copy_from_slice(event_type.as_bytes());
        }
        if let Some(at) = self.wanted {
            wire::write_number(&mut self.bytes[at..at + WANTED.len()], number % FILTERS);
        }
        if let Some(at) = self.signature {
            let mac = Encoding::Hex.encode(&Hash::Sha256.mac(&self.secret, &[&self.bytes[self.body..]]));
            self.bytes[at..at + SIGNATURE].copy_from_slice(mac.as_bytes());
        }
    }
}

fn authorization(load: &Load) -> String {
    format!("authorization: Bearer {}\r\n", load.token)
}

fn body(load: &Load) -> String {
    match load.form {
        // The number alone would come again in the next round.
        Form::Event => payload(load, &format!(r#","key":"{:016x}-{NUMBER}""#, load.run)),
        Form::Message | Form::Filtered => {
            let message_key = match load.keys {
                Keys::Twice => format!(r#","idempotency_key":"{:016x}-{NUMBER}""#, load.run),
                Keys::Fresh | Keys::None | Keys::One => String::new(),
            };
            let wanted = if load.form == Form::Filtered { format!(r#","for":"{WANTED}""#) } else { String::new() };
            format!(r#"{{"eventType":"{SENT}"{message_key},"payload":{}}}"#, payload(load, &wanted))
        }
    }
}

/// What receivers get: a number, something more, and what makes it as long as it is to be.
fn payload(load: &Load, more: &str) -> String {
    let known = BEFORE_NUMBER.len() + DIGITS + more.len() + r#"","pad":""}"#.len();
    format!(r#"{BEFORE_NUMBER}{NUMBER}"{more},"pad":"{}"}}"#, "x".repeat(load.payload.saturating_sub(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(form: Form, keys: Keys) -> Load {
        Load {
            servers: vec!["127.0.0.1:1".parse().expect("an address")],
            path: "/api/v1/app/a/msg".to_owned(),
            token: "t".to_owned(),
            run: 0xAB,
            payload: 512,
            concurrency: 1,
            rate: None,
            form,
            keys,
            has_both: true,
        }
    }

    fn filled(form: Form, keys: Keys, number: u64, post: u8, is_for_both: bool) -> (String, String, serde_json::Value) {
        let load = load(form, keys);
        let mut template = Template::new(&load, load.servers[0]);
        template.fill(number, post, is_for_both);
        let text = String::from_utf8(template.bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        (head.to_owned(), body.to_owned(), serde_json::from_str(body).expect("JSON"))
    }

    #[test]
    fn a_request_is_patched_in_place() {
        let (head, _, body) = filled(Form::Message, Keys::Fresh, 42, 0, false);
        assert!(head.contains("idempotency-key: 00000000000000ab-0000000042-0") && head.contains("Bearer t"), "{head}");
        assert_eq!((body["eventType"].as_str(), body["payload"]["n"].as_str()), (Some(SENT), Some("0000000042")));
        assert_eq!(body["payload"].to_string().len(), 512);
        assert_eq!(filled(Form::Message, Keys::Fresh, 1, 0, true).2["eventType"], BOTH);
    }

    #[test]
    fn keys_are_those_that_the_scenario_asks_for() {
        assert!(!filled(Form::Message, Keys::None, 1, 0, false).0.contains("idempotency-key"));
        let (head, _, body) = filled(Form::Message, Keys::Twice, 7, 1, false);
        assert!(head.contains("-0000000007-1"), "{head}");
        assert_eq!(body["idempotency_key"], "00000000000000ab-0000000007");
    }

    #[test]
    fn a_payload_says_which_endpoint_it_is_for() {
        let (_, _, body) = filled(Form::Filtered, Keys::Fresh, 1207, 0, false);
        assert_eq!(body["payload"]["for"], "07");
        assert_eq!(body["payload"].to_string().len(), 512);
    }

    #[test]
    fn an_event_is_signed_and_has_a_key_of_its_own_and_no_token() {
        let (head, text, body) = filled(Form::Event, Keys::Fresh, 9, 0, false);
        let mac = Hash::Sha256.mac(&SharedSecret::new(SIGNATURE_SECRET), &[text.as_bytes()]);
        assert!(head.contains(&format!("{SIGNATURE_HEADER}: {}", Encoding::Hex.encode(&mac))), "{head}");
        assert!(!head.contains("authorization") && !head.contains("idempotency-key"), "{head}");
        assert_eq!((body["key"].as_str(), text.len()), (Some("00000000000000ab-0000000009"), 512));
    }
}
