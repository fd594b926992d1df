//! A receiver of webhooks that does everything once, on axum, sqlx and Postgres.
//!
//! `DATABASE_URL` names a database with the tables of schema.sql, `WEBHOOK_SECRET` is the endpoint's signing secret
//! (`whsec_…`), and `PORT` is where it listens, on loopback: what faces the Internet is your proxy.

use std::{env, net::Ipv4Addr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use sqlx::PgPool;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

const CLAIM: &str = "insert into webhook_seen (id, forget_after)
    values ($1, greatest($2::text::timestamptz, now()) + interval '6 days') on conflict do nothing";
const PROCESS: &str = "insert into payment (order_number) values ($1)";

struct Receiver {
    verifier: Webhook,
    pool: PgPool,
}

#[tokio::main]
async fn main() {
    let setting = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let verifier = Webhook::new(&setting("WEBHOOK_SECRET")).expect("a secret like whsec_…");
    let pool = PgPool::connect(&setting("DATABASE_URL")).await.expect("a database");
    let port = setting("PORT").parse().expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
    eprintln!("listening");
    let routes = Router::new().route("/", post(receive)).with_state(Arc::new(Receiver { verifier, pool }));
    axum::serve(listener, routes).await.expect("it serves until it is stopped");
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    if receiver.verifier.verify(&body, &headers).is_err() {
        return (StatusCode::UNAUTHORIZED, "not signed by the sender");
    }
    match receiver.process_once(&headers, &body).await {
        Ok(true) => (StatusCode::OK, "processed"),
        Ok(false) => (StatusCode::OK, "seen before"),
        Err(error) => {
            eprintln!("{error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "try again")
        }
    }
}

impl Receiver {
    /// Claims, processes and commits in one transaction, which is rolled back if this returns or is dropped before; `false` if
    /// the webhook was claimed before.
    async fn process_once(&self, headers: &HeaderMap, body: &[u8]) -> Result<bool, sqlx::Error> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let payload: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut transaction = self.pool.begin().await?;
        let claim = sqlx::query(CLAIM).bind(text("webhook-id")).bind(text("posthaste-redelivery-until"));
        if claim.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(PROCESS).bind(payload["order"].as_i64()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
