//! The ground of a scenario: a database of its own, the application that is measured, and what is in the tables beforehand.

use std::time::Duration;

use domain::id::Id;
use serde_json::{Value, json};
use storage::bench::{Bench, Measured};

use crate::{
    Error, Result,
    receiver::{NEVER, Receiver},
    scenario::{FILTERS, Form, Hanging, Scenario, Stock},
    servers::Server,
    template::{BOTH, SENT, SIGNATURE_HEADER, SIGNATURE_SECRET},
};

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 512;
/// The event type of the endpoint that gets nothing.
const OTHER: &str = "bench.other";
/// The event type of what is owed before the load comes.
const OWED: &str = "bench.owed";
/// How long a server is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(1);

/// The application that is measured.
#[derive(Debug)]
pub(crate) struct Application {
    /// The path under which messages are posted.
    pub(crate) path: String,
    /// The first endpoint that matches.
    healthy: String,
    /// The endpoint that never answers, if there is one.
    hanging: Option<String>,
    id: String,
}

impl Application {
    /// Makes it through the API, with its endpoints; the path of each names its number.
    pub(crate) async fn create(server: &Server, receiver: &Receiver, scenario: &Scenario) -> Result<Self> {
        match scenario.form {
            Form::Message => Self::with_types(server, receiver, scenario).await,
            Form::Filtered => Self::with_filters(server, receiver).await,
            Form::Event => Self::with_sources(server, receiver).await,
        }
    }

    /// Its endpoints choose by event type.
    async fn with_types(server: &Server, receiver: &Receiver, scenario: &Scenario) -> Result<Self> {
        for event_type in [SENT, BOTH, OTHER, OWED] {
            server.create("/api/v1/event-type", &json!({"name": event_type, "description": ""})).await?;
        }
        let id = id_of(&server.create("/api/v1/app", &json!({"name": "bench"})).await?)?;
        let mut healthy = String::new();
        let endpoints = format!("/api/v1/app/{id}/endpoint");
        for number in (0..scenario.matching).rev() {
            let url = receiver.url(&format!("/e{number}"));
            healthy = id_of(&server.create(&endpoints, &json!({"url": url, "filterTypes": [SENT, BOTH]})).await?)?;
        }
        server.create(&endpoints, &json!({"url": receiver.url("/other"), "filterTypes": [OTHER]})).await?;
        let mut hanging = None;
        if let Some(state) = scenario.hanging {
            let endpoint = id_of(&server.create(&endpoints, &json!({"url": receiver.url(NEVER), "filterTypes": [BOTH]})).await?)?;
            if state == Hanging::Disabled {
                server.change("PATCH", &format!("{endpoints}/{endpoint}"), &json!({"disabled": true})).await?;
            }
            hanging = Some(endpoint);
        }
        Ok(Self { path: format!("/api/v1/app/{id}/msg"), healthy, hanging, id })
    }

    /// Its endpoints choose by what is in a payload; together they want each message once, so that all have the number of one.
    async fn with_filters(server: &Server, receiver: &Receiver) -> Result<Self> {
        server.create("/api/v1/event-type", &json!({"name": SENT, "description": ""})).await?;
        let id = id_of(&server.create("/api/v1/app", &json!({"name": "bench"})).await?)?;
        let mut healthy = String::new();
        for number in 0..FILTERS {
            let filter = json!({"body": {"for": format!("{number:02}")}});
            let endpoint = json!({"url": receiver.url("/e0"), "filterTypes": [SENT], "filter": filter});
            healthy = id_of(&server.create(&format!("/api/v1/app/{id}/endpoint"), &endpoint).await?)?;
        }
        Ok(Self { path: format!("/api/v1/app/{id}/msg"), healthy, hanging: None, id })
    }

    /// A project with two sources, each with an endpoint that subscribed to it. Events are posted to the first.
    async fn with_sources(server: &Server, receiver: &Receiver) -> Result<Self> {
        let listed = server.change("GET", "/api/v1/projects", &Value::Null).await?;
        let project = format!("/api/v1/projects/{}", text(&listed["data"][0], "uid")?);
        server.change("PUT", &project, &json!({"type": "incoming"})).await?;
        let hmac = json!({"header": SIGNATURE_HEADER, "hash": "SHA256", "encoding": "hex", "secret": SIGNATURE_SECRET});
        let source = json!({"name": "bench", "verifier": {"type": "hmac", "hmac": hmac}, "idempotency_keys": ["request.body.key"]});
        let (mut path, mut healthy) = (String::new(), String::new());
        for at in ["/other", "/e0"] {
            let made = &server.create(&format!("{project}/sources"), &source).await?["data"];
            let endpoint =
                &server.create(&format!("{project}/endpoints"), &json!({"name": "bench", "url": receiver.url(at)})).await?["data"];
            healthy = text(endpoint, "uid")?;
            let subscription = json!({"name": "bench", "endpoint_id": healthy, "source_id": text(made, "uid")?});
            server.create(&format!("{project}/subscriptions"), &subscription).await?;
            let url = text(made, "url")?;
            path =
                url.find("/ingest/").map(|at| url[at..].to_owned()).ok_or_else(|| Error::Server(format!("no URL of a source: {url}")))?;
        }
        Ok(Self { path, healthy, hanging: None, id: project })
    }

    /// The endpoint that stocked rows are for: the one that never answers, if there is one.
    fn measured(&self) -> Result<Measured> {
        let unknown = |_| Error::Server("the API answered with an id that is none of ours".to_owned());
        Ok(Measured {
            application_id: Id::parse(&self.id).map_err(unknown)?,
            endpoint_id: Id::parse(self.hanging.as_ref().unwrap_or(&self.healthy)).map_err(unknown)?,
            payload: i32::try_from(PAYLOAD).unwrap_or(i32::MAX),
        })
    }
}

/// The ground of one scenario over all rounds.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) database_url: String,
    pub(crate) application: Application,
    pub(crate) bench: Bench,
    /// Megabytes of a server that had made the application and then had nothing to do.
    pub(crate) idle_memory: Option<f64>,
    stocked: i64,
}

impl Site {
    /// Sets up an empty database by way of a server, which is stopped afterwards.
    pub(crate) async fn prepare(server: Server, database_url: String, receiver: &Receiver, scenario: &Scenario) -> Result<Self> {
        let application = Application::create(&server, receiver, scenario).await?;
        tokio::time::sleep(IDLE).await;
        let idle_memory = server.memory().map(|(now, _)| now);
        server.stop().await;
        let bench = Bench::connect(&database_url).await?;
        Ok(Self { database_url, application, bench, idle_memory, stocked: 0 })
    }

    /// Makes the database what it is to be when the load comes; `scale` is the share of the rows. No server may be running.
    pub(crate) async fn stock(&mut self, scenario: &Scenario, scale: f64) -> Result<()> {
        let application = &self.application;
        match scenario.stock {
            Stock::Nothing => {}
            Stock::Delivered(rows) => {
                let rows = share(rows, scale);
                if self.stocked < rows {
                    self.bench.stock_delivered(&application.measured()?, self.stocked, rows, rows).await?;
                    self.bench.vacuum().await?;
                    self.stocked = rows;
                }
            }
            // The queue has changed in the run before: it is made anew each time.
            Stock::Due(rows) => {
                self.bench.stock_due(&application.measured()?, share(rows, scale)).await?;
                if scenario.hanging == Some(Hanging::HalfOpen) {
                    self.bench.make_half_open(application.measured()?.endpoint_id).await?;
                }
                self.bench.vacuum().await?;
            }
            Stock::Asleep(..) if self.stocked > 0 => {}
            Stock::Asleep(rows, endpoints) => {
                let endpoints = i32::try_from(share(i64::from(endpoints), scale)).unwrap_or(i32::MAX);
                self.bench.stock_asleep(&application.measured()?, share(rows, scale), endpoints).await?;
                self.bench.vacuum().await?;
                self.stocked = rows;
            }
        }
        self.bench.checkpoint().await;
        Ok(())
    }

    /// Deliveries owed to the endpoint that never answers, if there is one.
    pub(crate) async fn owed(&mut self) -> Result<Option<i64>> {
        if self.application.hanging.is_none() {
            return Ok(None);
        }
        let endpoint_id = self.application.measured()?.endpoint_id;
        Ok(Some(self.bench.owed(endpoint_id).await?))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "row counts of a few millions")]
fn share(rows: i64, scale: f64) -> i64 {
    (rows as f64 * scale) as i64
}

fn id_of(answer: &Value) -> Result<String> {
    text(answer, "id")
}

fn text(answer: &Value, field: &str) -> Result<String> {
    answer[field].as_str().map(str::to_owned).ok_or_else(|| Error::Server(format!("an answer without `{field}`: {answer}")))
}
