//! A database that accepts connections and never answers: the program says for what it waits, obeys signals, and gives up in time.

use std::net::SocketAddr;

use rustix::process::Signal;
use support::{
    Database, JWT_SECRET, MAIN_SECRET, cluster,
    processes::{Process, command},
    proxy::Proxy,
};
use tokio::net::TcpListener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// Everything that begins with a database.
const COMMANDS: [&[&str]; 6] = [&["serve"], &["serve", "--migrate"], &["api"], &["worker"], &["migrate"], &["reseal"]];

/// A server that takes every connection and says nothing.
async fn silence() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
        }
    });
    address
}

fn start(arguments: &[&str], url: &str) -> Process {
    let environment = [
        ("POSTHASTE_DATABASE_URL", url),
        ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
        ("POSTHASTE_JWT_SECRET", JWT_SECRET),
        ("POSTHASTE_LISTEN", "127.0.0.1:0"),
    ];
    Process::spawn(command(PROGRAM, arguments, &environment))
}

#[tokio::test]
async fn a_signal_ends_the_wait_for_a_database_that_says_nothing() {
    let silent = silence().await;
    let url = format!("postgres://posthaste:hidden-password@{silent}/posthaste");
    for arguments in COMMANDS {
        for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut process = start(arguments, &url);
            let line = process.printed(&silent.to_string()).await;
            assert!(line.contains("Postgres"), "it says what it tries: {line}");
            process.signal(signal);
            let ended = process.ended().await;
            let log = process.log();
            // A server that is stopped has done what it should; a command has not.
            let is_server = matches!(arguments[0], "serve" | "api" | "worker");
            assert_eq!(ended.code(), Some(if is_server { 0 } else { status }), "{arguments:?} {log}");
            assert!(log.contains("stopped before it had started") || log.contains("interrupted"), "{log}");
            assert!(!log.contains("hidden-password"), "{log}");
        }
    }
}

#[tokio::test]
async fn a_database_that_says_nothing_is_named_and_given_up_in_time() {
    let silent = silence().await;
    let url = format!("postgres://posthaste:hidden-password@{silent}/posthaste");
    let processes: Vec<_> = COMMANDS.iter().map(|arguments| start(arguments, &url)).collect();
    for mut process in processes {
        process.printed("waiting for an answer of Postgres").await;
        assert!(!process.ended().await.success());
        let log = process.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(&silent.to_string()) && last.contains("did not answer within 10 seconds"), "{log}");
        assert!(!log.contains("hidden-password"), "{log}");
    }
}

#[tokio::test]
async fn a_database_that_falls_silent_later_is_given_up_too_and_signals_are_heard() {
    let database = Database::create().await;
    for words in ["to_regclass", "server_version_num"] {
        let proxy = Proxy::to(cluster::place_of(&database.url)).await;
        let url = cluster::url_through(&database.url, proxy.address);
        proxy.keep_answer_once(words.as_bytes());
        let mut process = start(&["serve"], &url);
        proxy.has_sprung(1).await;
        process.signal(Signal::TERM);
        assert!(process.ended().await.success(), "{words}: {}", process.log());
        proxy.keep_answer_once(words.as_bytes());
        let mut process = start(&["serve"], &url);
        assert!(!process.ended().await.success(), "{words}: {}", process.log());
        assert!(process.log().contains("did not answer"), "{words}: {}", process.log());
    }
}

#[tokio::test]
async fn a_signal_ends_dev_while_it_makes_its_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("data");
    let home_text = home.display().to_string();
    let mut process =
        Process::spawn(command(PROGRAM, &["dev"], &[("POSTHASTE_DATA_DIR", &home_text), ("POSTHASTE_LISTEN", "127.0.0.1:0")]));
    support::eventually("it has begun", async || home.exists().then_some(())).await;
    process.signal(Signal::TERM);
    assert!(process.ended().await.success(), "{}", process.log());
    assert!(!process.log().contains("Posthaste is running"), "{}", process.log());
}
