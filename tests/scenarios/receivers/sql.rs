//! The claim as one statement for `psql`: a receiver in a shell script could not do less.

use std::process::Stdio;

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use support::processes::{command, run};

use super::{
    Scene,
    once::{lost_answer, resend, ten_copies},
    root,
};

/// Runs claim.sql for each webhook, on the database that the state names.
async fn claim(State(database_url): State<String>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().expect("ASCII"));
    let id = format!("id={}", text("webhook-id"));
    let until = format!("until={}", text("posthaste-redelivery-until"));
    let payload = format!("payload={}", std::str::from_utf8(&body).expect("text"));
    let arguments = ["-X", "-v", "ON_ERROR_STOP=1", "-v", &id, "-v", &until, "-v", &payload, "-f", "examples/receivers/claim.sql"];
    let mut psql = command("psql", &arguments, &[]);
    psql.arg(database_url).current_dir(root()).stdin(Stdio::null());
    let (status, says, error) = run(psql).await;
    match says.trim() {
        "INSERT 0 1" => (StatusCode::OK, "processed"),
        "INSERT 0 0" => (StatusCode::OK, "seen before"),
        _ => panic!("{status}: {says}{error}"),
    }
}

async fn scene() -> Scene {
    let scene = Scene::set().await;
    let listener = tokio::net::TcpListener::bind(scene.address).await.expect("a free port");
    let routes = Router::new().route("/", post(claim)).with_state(scene.theirs.url.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    scene
}

#[tokio::test]
async fn the_statement_processes_a_webhook_whose_answer_is_lost_once() {
    lost_answer(&scene().await).await;
}

#[tokio::test]
async fn the_statement_does_not_process_a_resend() {
    resend(&scene().await).await;
}

#[tokio::test]
async fn the_statement_processes_ten_copies_at_the_same_time_once() {
    ten_copies(&scene().await).await;
}
