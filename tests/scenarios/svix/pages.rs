//! Following `iterator` to the end of any list visits all that matches, once and in order, and `prevIterator` leads back.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::id::{AttemptId, Id, MessageId};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use support::{App, Client, Customer};
use uuid::Uuid;

const EVENT_TYPES: [&str; 4] = ["invoice.paid", "invoice.sent", "user.signup", "rare"];
const CHANNELS: [&str; 3] = ["berlin", "lima", "oslo"];
const KEYS: [&str; 2] = ["order-1", "order-2"];
const CODES: [i16; 6] = [0, 200, 204, 302, 404, 503];
/// The outcomes of attempts as they are stored: succeeded, failed, unknown, canceled, discarded.
const OUTCOMES: [i16; 5] = [0, 1, 2, 3, 4];
/// How many lists of each kind are walked, each with a filter of its own.
const WALKS: usize = 40;

/// One thing in a list, with whatever a filter of any list may ask about.
#[derive(Clone, Debug, Default)]
struct Item {
    /// Its place in the list, and its id (an event type's name).
    place: String,
    /// When it was made, to the millisecond.
    at: DateTime<Utc>,
    event_type: &'static str,
    channels: Vec<&'static str>,
    key: Option<&'static str>,
    outcome: i16,
    code: i16,
    message: String,
    endpoint: String,
    is_archived: bool,
}

/// What is asked of a list.
#[derive(Clone, Debug, Default)]
struct Wanted {
    event_types: Option<Vec<&'static str>>,
    channel: Option<&'static str>,
    before: Option<DateTime<Utc>>,
    after: Option<DateTime<Utc>>,
    key: Option<&'static str>,
    status: Option<u16>,
    is_expanded: bool,
    class: Option<i16>,
    endpoint: Option<String>,
    with_archived: Option<bool>,
    is_ascending: Option<bool>,
    limit: usize,
}

impl Wanted {
    fn query(&self) -> String {
        let mut query = format!("limit={}", self.limit);
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let order = self.is_ascending.map(|is_ascending| if is_ascending { "ascending" } else { "descending" }.to_owned());
        let parts = [
            ("event_types", self.event_types.as_ref().map(|names| names.join(","))),
            ("channel", self.channel.map(str::to_owned)),
            ("before", self.before.map(time)),
            ("after", self.after.map(time)),
            ("idempotency_key", self.key.map(str::to_owned)),
            ("status", self.status.map(|status| status.to_string())),
            ("expanded_statuses", self.is_expanded.then(|| "true".to_owned())),
            ("status_code_class", self.class.map(|class| class.to_string())),
            ("endpoint_id", self.endpoint.clone()),
            ("include_archived", self.with_archived.map(|with| with.to_string())),
            ("order", order),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(query, "&{name}={value}").expect("text grows");
            }
        }
        query
    }

    fn shows(&self, item: &Item) -> bool {
        let status = match item.outcome {
            0 => 0,
            3 | 4 if self.is_expanded => 4,
            _ => 2,
        };
        self.event_types.as_ref().is_none_or(|names| names.contains(&item.event_type))
            && self.channel.is_none_or(|channel| item.channels.contains(&channel))
            && self.before.is_none_or(|before| item.at < before)
            && self.after.is_none_or(|after| item.at >= after)
            && self.key.is_none_or(|key| item.key == Some(key))
            && self.status.is_none_or(|wanted| wanted == status)
            && self.class.is_none_or(|class| item.code / 100 * 100 == class)
            && self.endpoint.as_ref().is_none_or(|endpoint| *endpoint == item.endpoint)
            && (!item.is_archived || self.with_archived == Some(true))
    }

    /// The whole list that this asks for.
    fn whole(&self, items: &[Item], is_ascending_by_default: bool) -> Vec<String> {
        let mut shown: Vec<_> = items.iter().filter(|item| self.shows(item)).map(|item| item.place.clone()).collect();
        shown.sort();
        if !self.is_ascending.unwrap_or(is_ascending_by_default) {
            shown.reverse();
        }
        shown
    }
}

/// The lists of a tenant that are walked, and what chance decides.
struct Walker {
    client: Client,
    chance: StdRng,
    seed: u64,
}

impl Walker {
    fn new(client: &Client) -> Self {
        let seed = std::env::var("POSTHASTE_TEST_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"));
        Self { client: client.clone(), chance: StdRng::seed_from_u64(seed), seed }
    }

    /// Now and then one of these.
    fn maybe<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if self.chance.random_bool(0.35) { of.choose(&mut self.chance).cloned() } else { None }
    }

    /// A moment at one of the items, or so near that only exact arithmetic can tell on which side it is.
    fn moment(&mut self, items: &[Item]) -> Option<DateTime<Utc>> {
        let away = *[-1000, -500, -1, 0, 0, 1, 500, 1000].choose(&mut self.chance).expect("one");
        self.maybe(items).map(|item| item.at + TimeDelta::microseconds(away))
    }

    /// What lists of messages and of attempts can be asked for alike.
    fn shared(&mut self, items: &[Item]) -> Wanted {
        let names = (self.maybe(&EVENT_TYPES), self.maybe(&EVENT_TYPES));
        Wanted {
            event_types: names.0.map(|name| [Some(name), names.1].into_iter().flatten().collect()),
            channel: self.maybe(&CHANNELS),
            before: self.moment(items),
            after: self.moment(items),
            limit: self.chance.random_range(1..=9),
            ..Wanted::default()
        }
    }

    /// What lists of attempts can be asked for besides.
    fn attempts(&mut self, items: &[Item]) -> Wanted {
        Wanted {
            status: self.maybe(&[0, 2, 4]),
            is_expanded: self.chance.random_bool(0.5),
            class: self.maybe(&[0, 200, 300, 400, 500]),
            ..self.shared(items)
        }
    }

    /// What lists of things that are configured can be asked for.
    fn ordered(&mut self) -> Wanted {
        Wanted { is_ascending: self.maybe(&[true, false]), limit: self.chance.random_range(1..=9), ..Wanted::default() }
    }

    /// Walks a list to its end and back, and compares both ways with what it should be.
    async fn walk(&self, path: &str, wanted: &Wanted, place: &str, whole: &[String]) {
        let query = wanted.query();
        let asked = format!("{path}?{query} (POSTHASTE_TEST_SEED={})", self.seed);
        let page = async |iterator: &str| {
            let iterator = if iterator.is_empty() { String::new() } else { format!("&iterator={iterator}") };
            self.client.get(&format!("{path}?{query}{iterator}")).await.expect(200).json()
        };
        let places = |page: &Value| -> Vec<String> {
            page["data"].as_array().expect("a page").iter().map(|item| item[place].as_str().expect("a place").to_owned()).collect()
        };
        let mut forwards = vec![page("").await];
        while forwards.last().expect("a page")["done"] == false {
            let next =
                forwards.last().and_then(|page| page["iterator"].as_str()).expect("a page that is not the last says where the next is");
            let found = page(next).await;
            forwards.push(found);
            assert!(forwards.len() <= whole.len() + 1, "{asked} does not end");
        }
        let shown: Vec<_> = forwards.iter().flat_map(places).collect();
        assert_eq!(shown, whole, "{asked}, forwards");
        assert_eq!(forwards.len(), whole.len().div_ceil(wanted.limit).max(1), "{asked}: no page is shorter than it must be");

        let mut backwards = vec![forwards.last().expect("a page").clone()];
        while let Some(before) = backwards.last().and_then(|page| page["prevIterator"].as_str()) {
            let found = page(before).await;
            if places(&found).is_empty() {
                assert_eq!(found["done"], true, "{asked}: before the first page there is nothing");
                break;
            }
            backwards.push(found);
            assert!(backwards.len() <= forwards.len(), "{asked} does not end, backwards");
        }
        backwards.reverse();
        assert_eq!(backwards.iter().map(places).collect::<Vec<_>>(), forwards.iter().map(places).collect::<Vec<_>>(), "{asked}, backwards");
        let ways_on = |pages: &[Value]| pages.iter().map(|page| page["iterator"].clone()).collect::<Vec<_>>();
        assert_eq!(ways_on(&backwards), ways_on(&forwards), "{asked}: a page leads on the same way, however one came to it");
    }
}

/// A uuid of a moment, as those of messages and attempts are.
fn id_at(at: DateTime<Utc>, chance: &mut StdRng) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(at.timestamp_millis()).expect("after 1970"), &chance.random()).into_uuid()
}

/// Moments of the last hours, of which several are the same.
fn moments(n: i64) -> Vec<DateTime<Utc>> {
    let start = DateTime::from_timestamp_millis(Utc::now().timestamp_millis() - 3_600_000).expect("a time");
    (0..n).map(|step| start + TimeDelta::milliseconds(step / 3 * (1 + step % 2))).collect()
}

fn list_of_texts(texts: &[&str]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| format!("'{text}'")).collect();
    format!("array[{}]::text[]", quoted.join(","))
}

/// Stores messages as their publishers could have published them, in no order.
async fn messages(app: &App, customer: &Customer, chance: &mut StdRng) -> Vec<Item> {
    let application = Uuid::from(domain::id::ApplicationId::parse(&customer.id).expect("an id"));
    let mut rows = Vec::new();
    let mut items = Vec::new();
    for at in moments(90) {
        let id = id_at(at, chance);
        let channels: Vec<_> = CHANNELS.into_iter().filter(|_| chance.random_bool(0.4)).collect();
        let key = chance.random_bool(0.5).then(|| *KEYS.choose(chance).expect("a key"));
        let event_type = if chance.random_bool(0.05) { EVENT_TYPES[3] } else { EVENT_TYPES[chance.random_range(0..3)] };
        let key_text = key.map_or("null".to_owned(), |key| format!("'{key}'"));
        rows.push(format!("('{id}', '{application}', '{event_type}', {}, {key_text})", list_of_texts(&channels)));
        items.push(Item { place: MessageId(id).public(), at, event_type, channels, key, ..Item::default() });
    }
    let sql = format!(
        "insert into message (id, tenant_id, application_id, event_type, channels, message_key, payload, content_type)
         select m.id::uuid, a.tenant_id, a.id, m.event_type, nullif(m.channels, '{{}}'), m.message_key, '{{}}', 'application/json'
           from (values {}) m(id, application_id, event_type, channels, message_key) join application a on a.id = m.application_id::uuid",
        rows.join(",")
    );
    app.database.execute(&sql).await;
    items
}

/// Stores attempts to deliver some of the messages to two endpoints.
async fn attempts(app: &App, customer: &Customer, endpoints: &[String; 2], messages: &[Item], chance: &mut StdRng) -> Vec<Item> {
    let application = Uuid::from(domain::id::ApplicationId::parse(&customer.id).expect("an id"));
    let mut rows = Vec::new();
    let mut items = Vec::new();
    for at in moments(220) {
        let id = id_at(at, chance);
        let message = &messages[chance.random_range(0..messages.len() / 8)];
        let endpoint = endpoints.choose(chance).expect("an endpoint");
        let outcome = *OUTCOMES.choose(chance).expect("an outcome");
        let code = *CODES.choose(chance).expect("a code");
        let internal = Uuid::from(MessageId::parse(&message.place).expect("an id"));
        let to = Uuid::from(domain::id::EndpointId::parse(endpoint).expect("an id"));
        rows.push(format!("('{id}', '{internal}', '{to}', '{application}', {outcome}, {code})"));
        let (place, to) = (AttemptId(id).public(), endpoint.clone());
        items.push(Item { place, at, outcome, code, endpoint: to, message: message.place.clone(), ..message.clone() });
    }
    let sql = format!(
        "insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, is_latest, url)
         select t.id::uuid, t.message::uuid, t.endpoint::uuid, 0, 1, a.tenant_id, a.id, 0, t.outcome, t.code, false, 'http://127.0.0.1/'
           from (values {}) t(id, message, endpoint, application, outcome, code) join application a on a.id = t.application::uuid",
        rows.join(",")
    );
    app.database.execute(&sql).await;
    items
}

#[tokio::test]
async fn pages_of_messages_and_attempts_make_up_all_that_matches() {
    let app = App::start().await;
    let mut walker = Walker::new(&app.client);
    let customer = app.customer().await;
    let other = app.customer().await;
    let endpoints = [customer.endpoint("http://127.0.0.1:9/a").await, customer.endpoint("http://127.0.0.1:9/b").await];
    let published = messages(&app, &customer, &mut walker.chance).await;
    messages(&app, &other, &mut walker.chance).await;
    let made = attempts(&app, &customer, &endpoints, &published, &mut walker.chance).await;
    for _ in 0..WALKS {
        let wanted = Wanted { key: walker.maybe(&KEYS), ..walker.shared(&published) };
        walker.walk(&customer.path("/msg"), &wanted, "id", &wanted.whole(&published, false)).await;

        let wanted = walker.attempts(&made);
        let endpoint = endpoints.choose(&mut walker.chance).expect("an endpoint").clone();
        let of_endpoint = made.iter().filter(|item| item.endpoint == endpoint).cloned().collect::<Vec<_>>();
        walker.walk(&customer.path(&format!("/attempt/endpoint/{endpoint}")), &wanted, "id", &wanted.whole(&of_endpoint, false)).await;

        let wanted = Wanted { endpoint: walker.maybe(&endpoints), ..walker.attempts(&made) };
        let message = made.choose(&mut walker.chance).expect("an attempt").message.clone();
        let of_message = made.iter().filter(|item| item.message == message).cloned().collect::<Vec<_>>();
        walker.walk(&customer.path(&format!("/attempt/msg/{message}")), &wanted, "id", &wanted.whole(&of_message, false)).await;
    }
}

#[tokio::test]
async fn pages_of_applications_endpoints_and_event_types_make_up_all_that_matches() {
    let app = App::start().await;
    let mut walker = Walker::new(&app.client);
    let item = |place: String| Item { place, ..Item::default() };
    let (mut applications, mut endpoints, mut event_types) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..23 {
        applications.push(item(app.customer().await.id));
    }
    let customer = Customer { id: applications[0].place.clone(), client: app.client.clone() };
    for n in 0..23 {
        endpoints.push(item(customer.endpoint(&format!("http://127.0.0.1:9/{n}")).await));
        // Names that a dictionary sorts otherwise than their bytes, and some that look like an iterator that leads back.
        let name: String = (0..3).map(|_| *b"aBb_.-Z9".choose(&mut walker.chance).expect("a letter")).map(char::from).collect();
        let name = format!("{}{name}{n}", if n % 5 == 3 { "-" } else { "" });
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
        event_types.push(item(name));
    }
    for _ in 0..4 {
        app.client.delete(&format!("/api/v1/app/{}", applications.pop().expect("one").place)).await.expect(204);
        app.client.delete(&customer.path(&format!("/endpoint/{}", endpoints.pop().expect("one").place))).await.expect(204);
    }
    for event_type in event_types.iter_mut().step_by(3) {
        app.client.delete(&format!("/api/v1/event-type/{}", event_type.place)).await.expect(204);
        event_type.is_archived = true;
    }
    for _ in 0..WALKS / 2 {
        let wanted = walker.ordered();
        walker.walk("/api/v1/app", &wanted, "id", &wanted.whole(&applications, true)).await;
        let wanted = walker.ordered();
        walker.walk(&customer.path("/endpoint"), &wanted, "id", &wanted.whole(&endpoints, false)).await;
        let wanted = Wanted { with_archived: walker.maybe(&[true, false]), ..walker.ordered() };
        walker.walk("/api/v1/event-type", &wanted, "name", &wanted.whole(&event_types, true)).await;
    }
}
