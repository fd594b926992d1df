//! `posthaste dev`, as a stranger runs it: on a bare machine, as anybody, twice, and after a crash.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rustix::process::{Signal, geteuid};
use serde_json::json;
use support::{
    Client, eventually,
    processes::{Process, command, run},
};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// A user without rights of its own, there on every Linux.
const NOBODY: u32 = 65534;

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("posthaste-dev-").tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    folder
}

struct Dev {
    process: Process,
    client: Client,
    curl: String,
    see: String,
}

/// Starts `dev` in this folder and waits for its welcome.
async fn dev(folder: &Path, as_other: bool) -> Dev {
    let data = folder.join("data").display().to_string();
    let environment = [("POSTHASTE_DATA_DIR", data.as_str())];
    let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned(), "--".to_owned()];
    let copy = folder.join("posthaste");
    let mut arguments: Vec<_> = user.iter().map(String::as_str).collect();
    let process = if as_other {
        // The build folder may be closed to other users.
        fs::copy(PROGRAM, &copy).expect("a copy of the program");
        let program = copy.display().to_string();
        arguments.extend([program.as_str(), "dev"]);
        Process::spawn(command("setpriv", &arguments, &environment))
    } else {
        Process::spawn(command(PROGRAM, &["dev"], &environment))
    };
    welcomed(process).await
}

async fn welcomed(mut process: Process) -> Dev {
    let last = |line: String| line.split_whitespace().next_back().expect("a value").to_owned();
    let api = last(process.printed("API ").await);
    let token = last(process.printed("Token ").await);
    let curl = process.printed("curl http").await;
    let see = process.printed("/_play/").await.trim().to_owned();
    let base = api.strip_suffix("/api/v1").expect("the API's address").to_owned();
    Dev { process, client: Client::new(&base, Some(&token)), curl, see }
}

/// The server processes of the cluster in this folder.
fn postgres_of(folder: &Path) -> Vec<String> {
    let inside = |pid: &String| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let is_postgres = |pid: &String| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres"));
    let entries = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().into_string().ok());
    entries.filter(is_postgres).filter(inside).collect()
}

async fn no_postgres_is_left(folder: &Path) {
    eventually("no postgres is left", async || postgres_of(folder).is_empty().then_some(())).await;
}

/// Runs the printed curl line as it stands and sees the webhook at the printed address.
async fn the_printed_line_works(dev: &Dev, invoice: &str) {
    let line = dev.curl.replace("inv_1", invoice);
    let (status, out, errors) = run(command("sh", &["-c", &format!("{line} --silent --show-error")], &[])).await;
    assert!(status.success(), "{line}: {errors}");
    assert!(out.contains("msg_"), "{out}");
    let path = dev.see.strip_prefix(&dev.client.base).expect("an address of ours").to_owned();
    eventually("the webhook is shown", async || {
        let page = dev.client.request("GET", &path).unchecked().send().await;
        String::from_utf8_lossy(&page.body).contains(invoice).then_some(())
    })
    .await;
}

/// Runs the printed line that sends an event to the sample source; returns what it is told.
async fn sends_an_event(dev: &mut Dev, event: &str) -> String {
    let line = dev.process.printed("/ingest/").await.replace("evt_1", event);
    let (status, out, errors) = run(command("sh", &["-c", &format!("{line} --silent --show-error")], &[])).await;
    assert!(status.success(), "{line}: {errors}");
    out
}

#[tokio::test]
async fn dev_needs_nothing_keeps_its_data_and_cleans_up_after_itself() {
    let folder = folder();
    let mut first = dev(folder.path(), false).await;
    the_printed_line_works(&first, "inv_first").await;
    assert!(sends_an_event(&mut first, "evt_first").await.contains("Event received"));
    let path = first.see.strip_prefix(&first.client.base).expect("an address of ours").to_owned();
    eventually("the event is shown", async || {
        let page = first.client.request("GET", &path).unchecked().send().await;
        String::from_utf8_lossy(&page.body).contains("evt_first").then_some(())
    })
    .await;
    assert!(!postgres_of(folder.path()).is_empty());
    first.process.signal(Signal::INT);
    assert_eq!(first.process.ended().await.code(), Some(0), "{}", first.process.log());
    assert!(postgres_of(folder.path()).is_empty(), "no postgres outlives an orderly end");

    let mut second = dev(folder.path(), false).await;
    let app = second.client.get("/api/v1/app/sample/msg").await.expect(200).json();
    assert_eq!(app["data"].as_array().map(Vec::len), Some(1), "what was published is still there");
    assert!(sends_an_event(&mut second, "evt_first").await.contains("Duplicate event received"), "it is the same source");
    second.process.signal(Signal::TERM);
    assert_eq!(second.process.ended().await.code(), Some(0));
    no_postgres_is_left(folder.path()).await;
}

#[tokio::test]
async fn dev_survives_being_killed() {
    let folder = folder();
    let mut killed = dev(folder.path(), false).await;
    killed.client.post("/api/v1/app/sample/msg", &json!({ "eventType": "invoice.paid", "payload": { "n": 1 } })).await.expect(202);
    killed.process.kill().await;
    no_postgres_is_left(folder.path()).await;
    let mut again = dev(folder.path(), false).await;
    let page = again.client.get("/api/v1/app/sample/msg").await.expect(200).json();
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1), "what was acknowledged before the kill is there");
    the_printed_line_works(&again, "inv_again").await;
    again.process.kill().await;
    // At once, while the old Postgres may still be ending.
    let mut third = dev(folder.path(), false).await;
    the_printed_line_works(&third, "inv_third").await;
    third.process.signal(Signal::TERM);
    third.process.ended().await;
    no_postgres_is_left(folder.path()).await;
}

#[tokio::test]
async fn two_of_them_run_side_by_side() {
    let (left, right) = (folder(), folder());
    let (one, other) = tokio::join!(dev(left.path(), false), dev(right.path(), false));
    assert_ne!(one.client.base, other.client.base, "the second takes a free port");
    tokio::join!(the_printed_line_works(&one, "inv_left"), the_printed_line_works(&other, "inv_right"));
    let data = left.path().join("data").display().to_string();
    let (status, _, errors) = run(command(PROGRAM, &["dev"], &[("POSTHASTE_DATA_DIR", &data)])).await;
    assert!(!status.success() && errors.contains("POSTHASTE_DATA_DIR"), "the same folder twice is a sentence: {errors}");
    the_printed_line_works(&one, "inv_still").await;
    drop((one, other));
    no_postgres_is_left(left.path()).await;
    no_postgres_is_left(right.path()).await;
}

#[tokio::test]
async fn a_usual_port_that_is_taken_is_said_and_the_health_check_finds_the_other_one() {
    let usual = "127.0.0.1:8071";
    let folder = folder();
    let data = folder.path().join("data").display().to_string();
    let environment = [("POSTHASTE_DATA_DIR", data.as_str())];
    let (mut dev, _holder) = loop {
        // Whoever else has it will do as well, as long as they keep it.
        let holder = std::net::TcpListener::bind(usual).ok();
        let mut dev = dev(folder.path(), false).await;
        if !dev.client.base.ends_with(usual) {
            break (dev, holder);
        }
        dev.process.signal(Signal::TERM);
        dev.process.ended().await;
    };
    let address = dev.client.base.trim_start_matches("http://").to_owned();
    let notice = dev.process.printed("Another program is using").await;
    assert!(notice.contains(usual) && notice.contains(&address), "{notice}");
    let (status, out, errors) = run(command(PROGRAM, &["healthcheck"], &environment)).await;
    assert!(status.success() && out.contains(&address), "{out}{errors}");
    dev.process.signal(Signal::TERM);
    assert_eq!(dev.process.ended().await.code(), Some(0), "{}", dev.process.log());
    let (_, out, _) = run(command(PROGRAM, &["healthcheck"], &environment)).await;
    assert!(!out.contains(&address), "what has ended is not healthy: {out}");

    let holder = std::net::TcpListener::bind(support::processes::free_address()).expect("a free port");
    let wanted = holder.local_addr().expect("an address").to_string();
    let chosen = [("POSTHASTE_DATA_DIR", data.as_str()), ("POSTHASTE_LISTEN", &wanted)];
    let (status, _, errors) = run(command(PROGRAM, &["dev"], &chosen)).await;
    assert!(!status.success() && errors.contains(&wanted) && errors.contains("already in use"), "{errors}");
    no_postgres_is_left(folder.path()).await;
}

#[tokio::test]
async fn another_user_can_run_it() {
    if !geteuid().is_root() {
        eprintln!("this run is by another user than root: the other scenarios show what this one would");
        return;
    }
    let folder = folder();
    let mut other = dev(folder.path(), true).await;
    the_printed_line_works(&other, "inv_nobody").await;
    other.process.signal(Signal::TERM);
    assert_eq!(other.process.ended().await.code(), Some(0));
    no_postgres_is_left(folder.path()).await;
}

#[tokio::test]
async fn without_postgres_binaries_it_says_what_to_install() {
    let folder = folder();
    let data = folder.path().join("data").display().to_string();
    // A proxy that nobody answers keeps the download from happening; an empty root hides the binaries of this machine.
    let environment = [
        ("PATH", "/nonexistent"),
        ("POSTHASTE_DATA_DIR", data.as_str()),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("https_proxy", "http://127.0.0.1:1"),
    ];
    if Path::new("/usr/lib/postgresql").exists() && !geteuid().is_root() {
        eprintln!("NOT RUN: only root can hide the Postgres of this machine");
        return;
    }
    let hide = "mount -t tmpfs none /usr/lib/postgresql 2>/dev/null; exec \"$0\" dev";
    let command = if Path::new("/usr/lib/postgresql").exists() {
        command(
            "/usr/bin/unshare",
            &["--mount", "--net", "sh", "-c", hide, PROGRAM],
            &[("POSTHASTE_DATA_DIR", data.as_str()), ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")],
        )
    } else {
        command(PROGRAM, &["dev"], &environment)
    };
    let (status, out, errors) = run(command).await;
    assert!(!status.success(), "{out}{errors}");
    assert!(errors.contains("postgresql") && errors.contains("install"), "{errors}");
    assert!(!errors.contains("panicked") && errors.lines().count() <= 3, "a sentence, not a stack trace: {errors}");
}
