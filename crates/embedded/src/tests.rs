//! What a private cluster promises, tried on real ones.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::Row as _;

use super::*;

/// A data folder with a name that needs care in a URL.
fn new_data_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("embedded 50% ").tempdir().expect("a temporary folder")
}

fn relaxed() -> Options {
    Options { durability: Durability::Relaxed, download: false, ..Options::default() }
}

async fn ask(cluster: &Cluster, database: &str, question: &'static str) -> String {
    let mut connection = cluster.options(database).expect("a URL").connect().await.expect("a connection");
    let row = connection.fetch_one(question).await.expect("an answer");
    row.get(0)
}

fn postmaster(cluster: &Cluster) -> Pid {
    let file = fs::read_to_string(cluster.server.data().join("postmaster.pid")).expect("a pid file");
    file.lines().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw).expect("a pid")
}

#[tokio::test]
async fn a_cluster_keeps_its_data_when_postgres_is_killed() {
    let folder = new_data_dir();
    let cluster = Cluster::start_with(folder.path(), &Options { download: false, ..Options::default() }).await.expect("a cluster");
    assert_eq!(ask(&cluster, "postgres", "select concat_ws(' ', current_setting('fsync'), current_setting('server_encoding'), current_setting('timezone'), current_setting('listen_addresses'), (select datcollate from pg_database where datname = 'postgres'))").await, "on UTF8 UTC  C");
    cluster.create_database("first", None).await.expect("a database");
    cluster
        .options("first")
        .expect("a URL")
        .connect()
        .await
        .expect("a connection")
        .execute("create table kept as select 'yes' as answer")
        .await
        .expect("a table");
    let url = cluster.url("first");
    kill_process(postmaster(&cluster), Signal::KILL).expect("a running server");
    drop(cluster);

    let cluster = Cluster::start(folder.path()).await.expect("the same cluster");
    assert_eq!(cluster.url("first"), url);
    cluster.create_database("second", Some("first")).await.expect("a copy");
    assert_eq!(ask(&cluster, "second", "select answer from kept").await, "yes");
    assert!(cluster.has_database("second").await.expect("an answer"));
    assert!(!cluster.has_database("third").await.expect("an answer"));
    cluster.stop_at_once().await;
    let cluster = Cluster::start(folder.path()).await.expect("the same cluster");
    assert_eq!(ask(&cluster, "second", "select answer from kept").await, "yes");
    cluster.stop().await;
    assert_eq!(processes_below(folder.path()), 0);
}

#[tokio::test]
async fn two_run_side_by_side_but_not_on_one_folder() {
    let (first_folder, second_folder) = (new_data_dir(), new_data_dir());
    let first = Cluster::start_with(first_folder.path(), &relaxed()).await.expect("a cluster");
    let second = Cluster::start_with(second_folder.path(), &relaxed()).await.expect("a cluster");
    first.create_database("only_here", None).await.expect("a database");
    assert!(!second.has_database("only_here").await.expect("an answer"));
    let third = Cluster::start_with(first_folder.path(), &relaxed()).await;
    assert!(matches!(third, Err(Error::InUse(_))), "{third:?}");
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_stranger_is_no_obstacle() {
    let folder = new_data_dir();
    Cluster::start_with(folder.path(), &relaxed()).await.expect("a cluster").stop().await;
    let data = folder.path().join("postgres").canonicalize().expect("a home").join("data");
    let ours = std::process::id();
    fs::write(data.join("postmaster.pid"), format!("{ours}\n{}\n1\n5432\n", data.display())).expect("a pid file");
    let cluster = Cluster::start_with(folder.path(), &relaxed()).await.expect("the same cluster");
    assert_eq!(ask(&cluster, "postgres", "select 'yes'").await, "yes");
}

#[tokio::test]
async fn a_server_that_was_left_behind_is_ended_first() {
    let folder = new_data_dir();
    let cluster = Cluster::start_with(folder.path(), &relaxed()).await.expect("a cluster");
    let left_behind = postmaster(&cluster);
    // The watcher dies with us, as nobody planned; the server lives on.
    let watcher = cluster.server.watcher();
    kill_process(watcher, Signal::KILL).expect("a running watcher");
    cluster.server.forget();
    let cluster = Cluster::start_with(folder.path(), &relaxed()).await.expect("the same cluster");
    assert_ne!(postmaster(&cluster), left_behind);
    assert_eq!(ask(&cluster, "postgres", "select 'yes'").await, "yes");
}

#[tokio::test]
async fn without_programs_one_sentence_names_the_package() {
    let folder = new_data_dir();
    let options = Options { search: Search::Only(vec![folder.path().to_owned()]), download: false, ..Options::default() };
    let error = Cluster::start_with(folder.path(), &options).await.expect_err("there are no programs").to_string();
    assert!(error.contains("apt-get install postgresql") && error.lines().count() == 1, "{error}");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_does_no_harm() {
    let outer = new_data_dir();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o711)).expect("our folder");
    let cluster = Cluster::start_with(&outer.path().join("x".repeat(120)), &relaxed()).await.expect("a cluster");
    assert_eq!(ask(&cluster, "postgres", "select 'yes'").await, "yes");
    let socket_folder = PathBuf::from(&cluster.socket_folder);
    let mode = fs::metadata(&socket_folder).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may not enter the socket's folder");
    drop(cluster);
    assert!(!socket_folder.exists());
}

#[tokio::test]
async fn a_data_folder_that_only_root_can_reach_does_no_harm() {
    let outer = new_data_dir();
    let folder = outer.path().join("below");
    let cluster = Cluster::start_with(&folder, &relaxed()).await.expect("a cluster");
    cluster.create_database("kept", None).await.expect("a database");
    drop(cluster);
    let cluster = Cluster::start_with(&folder, &relaxed()).await.expect("the same cluster");
    assert!(cluster.has_database("kept").await.expect("an answer"));
    drop(cluster);
    fs::remove_dir_all(folder.join("postgres").canonicalize().expect("a home")).expect("nothing uses it any more");
}

fn processes_below(folder: &Path) -> usize {
    let folder = folder.canonicalize().expect("a folder");
    let entries = fs::read_dir("/proc").expect("this test needs /proc").flatten();
    entries.filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))).count()
}
