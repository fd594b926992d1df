//! Nodes whose clocks are wrong: how long a key is remembered is decided by the database's clock alone.

use std::{fs, path::Path};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use support::{
    App, Client, PUBLIC_URL,
    customer::message,
    processes::{self, ServerProcess},
};

use crate::idempotency::same;

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// A library that shows a process another time of day: it takes the place of the function by which programs ask for it.
const OTHER_TIME: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *time) {
  int outcome = syscall(SYS_clock_gettime, id, time);
  if (outcome == 0 && id == CLOCK_REALTIME) time->tv_sec += atol(getenv("CLOCK_IS_AHEAD_BY"));
  return outcome;
}
"#;

/// Builds the library with the compiler that links the tests themselves.
async fn build_library(folder: &Path) -> String {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, OTHER_TIME).expect("a file");
    let paths = [library.to_str().expect("a plain path"), source.to_str().expect("a plain path")];
    let (status, _, errors) = processes::run(processes::command("cc", &["-shared", "-fPIC", "-o", paths[0], paths[1]], &[])).await;
    assert!(status.success(), "cc: {errors}");
    paths[0].to_owned()
}

/// How far the clock of a node is ahead of ours, by the date that its answers carry.
async fn ahead_of_us(client: &Client) -> TimeDelta {
    let answer = client.get("/api/v1/health/ping").await;
    let date = answer.header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok()).expect("a date");
    date.with_timezone(&Utc) - Utc::now()
}

#[tokio::test]
async fn nodes_whose_clocks_are_wrong_agree_on_what_is_remembered() {
    let app = App::start().await;
    let customer = app.customer().await;
    let folder = tempfile::tempdir().expect("a folder");
    let library = build_library(folder.path()).await;
    let mut servers = Vec::new();
    for seconds in [600, -600] {
        let ahead = seconds.to_string();
        let more = [("LD_PRELOAD", library.as_str()), ("CLOCK_IS_AHEAD_BY", &ahead), ("POSTHASTE_PUBLIC_URL", PUBLIC_URL)];
        let server = ServerProcess::start(PROGRAM, "serve", &app.database.url, &app.tenant, &more).await;
        let error = ahead_of_us(&server.client).await - TimeDelta::seconds(seconds);
        assert!(error.abs() < TimeDelta::minutes(1), "its clock is not wrong by {seconds} s, but {error} more");
        servers.push(server);
    }
    let (fast, slow) = (&servers[0].client, &servers[1].client);
    let publish = async |client: &Client, key: &str| customer.through(client).publish_raw(&message(&json!({})), Some(key)).await;
    for (one, other, key) in [(fast, slow, "a"), (slow, fast, "b")] {
        let first = publish(one, key).await.expect(202);
        same(&first, &publish(other, key).await);
        let lived = "select count(*) from idempotency where created_at between now() - interval '1 minute' and now()
            and expires_at = created_at + interval '24 hours 1 minute'";
        assert_eq!(app.database.number(lived).await, 1, "its times are the database's");
        app.database.execute("update idempotency set expires_at = now() + interval '5 minutes'").await;
        same(&first, &publish(one, key).await);
        same(&first, &publish(other, key).await);
        app.database.execute("update idempotency set expires_at = now() - interval '5 minutes'").await;
        let anew = publish(one, key).await.expect(202);
        assert!(!anew.is_replay());
        same(&anew, &publish(other, key).await);
        app.database.execute("delete from idempotency").await;
    }
}
