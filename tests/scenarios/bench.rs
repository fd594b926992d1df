//! `posthaste bench`, as a stranger runs it: what it prints is what happened, and what would say nothing is refused.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use embedded::{Cluster, Durability, Options};
use rustix::process::Signal;
use serde_json::Value;
use support::{
    Database, eventually,
    processes::{Process, command, run},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// Runs `bench` with these arguments; returns whether it succeeded, its standard output and its standard error.
async fn bench(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String, String) {
    let arguments: Vec<_> = ["bench"].iter().chain(arguments).copied().collect();
    let (status, out, errors) = run(command(PROGRAM, &arguments, environment)).await;
    (status.success(), out, errors)
}

fn scenario<'a>(report: &'a Value, name: &str) -> &'a Value {
    let scenarios = report["scenarios"].as_array().expect("scenarios");
    &scenarios.iter().find(|scenario| scenario["name"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}"))["figures"]
}

#[tokio::test]
async fn a_run_on_a_bare_machine_accounts_for_every_message() {
    let (is_well, out, errors) = bench(&["clean", "--messages", "300", "--rounds", "1", "--json"], &[]).await;
    assert!(is_well, "{errors}");
    let report: Value = serde_json::from_str(&out).expect("nothing but JSON on standard output");
    for name in ["null", "clean"] {
        let figures = scenario(&report, name);
        for (figure, wanted) in [("accepted", 300), ("delivered", 300), ("lost", 0), ("repeated", 0), ("refused", 0), ("stray", 0)] {
            assert_eq!(figures[figure], wanted, "{name}, {figure}: {figures:#}");
        }
        assert!(figures["api_ms"][0].as_f64() <= figures["api_ms"][1].as_f64(), "{figures:#}");
    }
    let figures = scenario(&report, "clean");
    let positive = |figure: &str| figures[figure].as_f64().is_some_and(|value| value > 0.0);
    for figure in ["wal_bytes", "peak_memory_mb", "accepted_per_second", "delivered_per_second"] {
        assert!(positive(figure), "{figure}: {figures:#}");
    }
    assert!(figures["wal_bytes"].as_f64().expect("a number") > 512.0, "a payload is written at least once: {figures:#}");
    assert_eq!(report["machine"]["fsync"], "on");
    assert!(errors.contains("fsync on") && errors.contains("full_page_writes on"), "it says on what it ran: {errors}");
}

#[tokio::test]
async fn a_database_that_is_given_is_left_as_it_was() {
    let own = support::cluster::Own::start().await;
    let url = own.empty_database("mine").await;
    let databases = "select count(*) from pg_database";
    let before = Database::existing(&url).number(databases).await;
    let arguments = ["duplicates", "failing10", "--messages", "60", "--concurrency", "4", "--rounds", "1", "--json"];
    let (is_well, out, errors) = bench(&arguments, &[("POSTHASTE_DATABASE_URL", &url)]).await;
    assert!(is_well, "{errors}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    let duplicates = scenario(&report, "duplicates");
    assert_eq!((&duplicates["accepted"], &duplicates["delivered"]), (&180.into(), &60.into()), "{duplicates:#}");
    let failing = scenario(&report, "failing10");
    assert_eq!((&failing["delivered"], &failing["lost"]), (&60.into(), &0.into()), "{failing:#}");
    let slowest = failing["end_to_end_ms"][2].as_f64().expect("a number");
    assert!(slowest > Duration::from_secs(3).as_secs_f64() * 1000.0, "a failed delivery waits for its retry: {failing:#}");
    let database = Database::existing(&url);
    assert_eq!(database.number(databases).await, before, "its own databases are gone");
    assert_eq!(database.number("select count(*) from pg_tables where schemaname = 'public'").await, 0, "nothing was made in ours");
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_owed_its_rows_and_holds_up_nobody() {
    let arguments = ["hanging", "--messages", "40", "--rounds", "1", "--scale", "0.002", "--json"];
    let (is_well, out, errors) = bench(&arguments, &[]).await;
    assert!(is_well, "{errors}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    for name in ["hanging", "hanging-disabled", "hanging-half-open"] {
        let figures = scenario(&report, name);
        assert_eq!((&figures["delivered"], &figures["lost"]), (&40.into(), &0.into()), "{name}: {figures:#}");
    }
    let owed = |name| scenario(&report, name)["owed"].as_i64().expect("a number");
    assert!(owed("hanging") >= 1000, "what it is owed stays owed: {}", owed("hanging"));
    assert!(owed("hanging-half-open") >= 1000, "a probe is one of many: {}", owed("hanging-half-open"));
    assert!(owed("hanging-disabled") <= 1000, "a disabled one gets nothing new: {}", owed("hanging-disabled"));
}

#[tokio::test]
async fn rows_that_are_stored_beforehand_and_a_second_server_lose_nothing() {
    let arguments = ["sleeping", "stored", "two-processes", "--messages", "40", "--rounds", "1", "--scale", "0.002", "--json"];
    let (is_well, out, errors) = bench(&arguments, &[]).await;
    assert!(is_well, "{errors}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    for name in ["sleeping", "stored", "two-processes"] {
        let figures = scenario(&report, name);
        assert_eq!((&figures["delivered"], &figures["lost"]), (&40.into(), &0.into()), "{name}: {figures:#}");
    }
    // The first has the round's own run right before it, the others one each.
    for name in ["sleeping", "stored", "two-processes"] {
        assert!(errors.contains(&format!("beside {name}: clean")) != (name == "sleeping"), "{name}: {errors}");
    }
}

#[tokio::test]
async fn events_that_are_signed_are_new_in_each_round() {
    let (is_well, out, errors) = bench(&["ingest", "--messages", "50", "--rounds", "2", "--json"], &[]).await;
    assert!(is_well, "{errors}");
    arrived_once(scenario(&serde_json::from_str(&out).expect("JSON"), "ingest"), 100);
}

#[tokio::test]
async fn a_hundred_endpoints_that_look_into_a_message_get_it_once_among_them() {
    let (is_well, out, errors) = bench(&["filters", "--messages", "120", "--rounds", "1", "--json"], &[]).await;
    assert!(is_well, "{errors}");
    arrived_once(scenario(&serde_json::from_str(&out).expect("JSON"), "filters"), 120);
}

#[track_caller]
fn arrived_once(figures: &Value, messages: u64) {
    for (figure, wanted) in [("accepted", messages), ("delivered", messages), ("lost", 0), ("repeated", 0), ("refused", 0), ("stray", 0)] {
        assert_eq!(figures[figure], wanted, "{figure}: {figures:#}");
    }
}

/// The arguments of each running process that was started with this variable, directly or not.
fn processes_with(variable: &str) -> Vec<String> {
    let has =
        |path: &Path| fs::read(path.join("environ")).is_ok_and(|text| text.split(|byte| *byte == 0).any(|one| one == variable.as_bytes()));
    let arguments = |path: &Path| fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ");
    let paths = fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    paths.filter(|path| has(path)).map(|path| arguments(&path)).collect()
}

#[tokio::test]
async fn a_run_that_is_stopped_leaves_nothing_behind_and_one_that_is_killed_nothing_running() {
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        let (temporary, mark) = (folder.path().display().to_string(), uuid::Uuid::new_v4().to_string());
        let mut run =
            Process::spawn(command(PROGRAM, &["bench", "idle", "--seconds", "60"], &[("TMPDIR", &temporary), ("BENCH_MARK", &mark)]));
        let variable = format!("BENCH_MARK={mark}");
        let is_there = |what: &str| processes_with(&variable).iter().any(|arguments| arguments.contains(what));
        eventually("a server and its Postgres run", async || (is_there("serve --migrate") && is_there("postgres")).then_some(())).await;
        run.signal(signal);
        assert!(!run.ended().await.success(), "{}", run.log());
        eventually("nothing is left running", async || processes_with(&variable).is_empty().then_some(())).await;
        if signal == Signal::TERM {
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "no temporary file is left");
        }
    }
}

#[tokio::test]
async fn a_chart_is_drawn_of_a_sweep_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.svg").display().to_string();
    let arguments = ["by-rows", "--messages", "30", "--rounds", "1", "--scale", "0.001", "--chart", &file];
    let (is_well, out, errors) = bench(&arguments, &[]).await;
    assert!(is_well, "{errors}");
    assert!(out.contains("by-rows: 2000000"), "{out}");
    let svg = fs::read_to_string(Path::new(&file)).expect("the chart");
    assert!(svg.starts_with("<svg") && svg.contains("Postgres") && svg.contains(">2 M<"), "{svg}");
    let (is_well, _, errors) = bench(&["clean", "--chart", &file], &[]).await;
    assert!(!is_well && errors.contains("by-rows"), "{errors}");
}

#[tokio::test]
async fn a_name_that_is_no_scenario_is_answered_with_those_that_are() {
    let (is_well, _, errors) = bench(&["clean", "nonsense"], &[]).await;
    assert!(!is_well);
    assert_eq!(errors.lines().count(), 1, "one sentence: {errors}");
    for name in ["nonsense", "clean", "hanging", "two-processes", "by-rate"] {
        assert!(errors.contains(name), "{name} in: {errors}");
    }
}

#[tokio::test]
async fn a_postgres_that_may_lose_commits_is_not_measured() {
    let folder = tempfile::Builder::new().prefix("posthaste-relaxed-").tempdir().expect("a folder");
    let options = Options { durability: Durability::Relaxed, ..Options::default() };
    let cluster = Cluster::start_with(folder.path(), &options).await.expect("a cluster");
    let (is_well, out, errors) = bench(&["idle"], &[("POSTHASTE_DATABASE_URL", &cluster.url("postgres"))]).await;
    assert!(!is_well && out.is_empty(), "{out}");
    let refusal = errors.lines().next_back().expect("a sentence");
    for setting in ["fsync is off", "synchronous_commit is off", "full_page_writes is off"] {
        assert!(refusal.contains(setting), "{setting} in: {refusal}");
    }
    cluster.stop().await;
}
