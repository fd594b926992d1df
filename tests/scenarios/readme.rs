//! The README's tour, typed as it stands there: what the program prints is what the README shows.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::Value;
use support::{
    Client, eventually,
    processes::{Process, command, run},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// Where the README's server listens, and how its reader runs the program.
const ADDRESS: &str = "127.0.0.1:8071";
const RUN: &str = "cargo run --release --quiet --";
/// What the README leaves out of an answer's head, as it says.
const LEFT_OUT: [&str; 3] = ["date:", "content-length:", "x-request-id:"];

/// A block of commands, and what is shown below it.
struct Sample {
    commands: String,
    shown: Option<String>,
}

fn tour() -> Vec<Sample> {
    let text = fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))).expect("README.md");
    let (_, tour) = text.split_once("\n## A tour\n").expect("a tour");
    let (tour, _) = tour.split_once("\n## ").expect("something after it");
    let mut samples: Vec<Sample> = Vec::new();
    for block in tour.split("```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').expect("a block of lines");
        match language {
            "sh" => samples.push(Sample { commands: text.to_owned(), shown: None }),
            "json" | "" => samples.last_mut().expect("commands before their output").shown = Some(text.to_owned()),
            "python" | "js" => {} // tests/sdks/run runs these.
            other => panic!("nothing runs the README's {other}"),
        }
    }
    samples
}

/// Replaces what differs from run to run. An id becomes its place among the ids seen, so the same one must come in the same places.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn text(&mut self, text: &str) -> String {
        let mut replaced = String::new();
        for token in text.split_inclusive(['"', ' ', '\n']) {
            let (word, end) = token.split_at(token.trim_end_matches(['"', ' ', '\n']).len());
            replaced.push_str(&if word.starts_with("v1,") {
                "v1,…".to_owned()
            } else {
                word.split('/').map(|part| self.part(part)).collect::<Vec<_>>().join("/")
            });
            replaced.push_str(end);
        }
        replaced
    }

    fn part(&mut self, part: &str) -> String {
        // An iterator that leads back.
        if let Some(id) = part.strip_prefix('-') {
            return format!("-{}", self.part(id));
        }
        if part.split_once('_').is_some_and(|(kind, rest)| ["app", "ep", "msg", "atmpt"].contains(&kind) && rest.len() == 27) {
            let place = self.0.iter().position(|name| name == part).unwrap_or_else(|| {
                self.0.push(part.to_owned());
                self.0.len() - 1
            });
            return format!("id {place}");
        }
        let is_time = chrono::DateTime::parse_from_rfc3339(part).is_ok();
        let is_seconds = part.len() == 10 && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_time || is_seconds { "a time".to_owned() } else { part.to_owned() }
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => {
                for (name, member) in members {
                    if name == "responseDurationMs" { *member = Value::Null } else { self.value(member) }
                }
            }
            _ => {}
        }
    }

    /// The lines of an answer, or of several, head and body.
    fn lines(&mut self, text: &str) -> Vec<String> {
        let is_shown = |line: &&str| !line.is_empty() && !LEFT_OUT.iter().any(|header| line.to_ascii_lowercase().starts_with(header));
        text.lines().map(|line| line.trim_end_matches('\r')).filter(is_shown).map(|line| self.text(line)).collect()
    }

    /// The answers, however they are indented; of what a receiver got, the newest.
    fn values(&mut self, text: &str) -> Vec<Value> {
        let values = serde_json::Deserializer::from_str(text).into_iter().map(|value| value.expect("JSON"));
        let newest = |mut value: Value| {
            if let Some(received) = value.get_mut("received").and_then(Value::as_array_mut) {
                received.truncate(1);
            }
            self.value(&mut value);
            value
        };
        values.map(newest).collect()
    }
}

/// Runs commands after those that the tour begins with.
async fn typed(setting: &str, commands: &str, dev: &Dev) -> String {
    let commands = format!("set -e\n{setting}\n{commands}").replace(ADDRESS, &dev.address).replace(RUN, PROGRAM);
    let (status, out, errors) = run(command("sh", &["-c", &commands], &[("POSTHASTE_DATA_DIR", &dev.data)])).await;
    assert!(status.success(), "{commands}\n{out}{errors}");
    out.replace(&dev.address, ADDRESS)
}

struct Dev {
    process: Process,
    client: Client,
    address: String,
    data: String,
    _folder: tempfile::TempDir,
}

async fn dev() -> Dev {
    let folder = tempfile::Builder::new().prefix("posthaste-readme-").tempdir().expect("a folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
    let data = folder.path().join("data").display().to_string();
    let environment = [("POSTHASTE_DATA_DIR", data.as_str()), ("POSTHASTE_LISTEN", "127.0.0.1:0")];
    let mut process = Process::spawn(command(PROGRAM, &["dev"], &environment));
    let word = |line: String| line.split_whitespace().next_back().expect("a word").to_owned();
    let base = word(process.printed("API ").await).trim_end_matches("/api/v1").to_owned();
    let token = word(process.printed("Token ").await);
    process.printed("/_play/first").await;
    let address = base.trim_start_matches("http://").to_owned();
    Dev { process, client: Client::new(&base, Some(&token)), address, data, _folder: folder }
}

#[tokio::test]
async fn the_tour_prints_what_it_shows() {
    let mut dev = dev().await;
    let mut samples = tour().into_iter();
    let setting = samples.next().expect("a beginning").commands;
    let (mut shown_names, mut printed_names) = (Names::default(), Names::default());
    let mut compared = 0;
    for Sample { commands, shown } in samples {
        let shown = shown.unwrap_or_else(|| panic!("the README does not show what this prints:\n{commands}"));
        if commands.contains("/attempt/") {
            eventually("both webhooks are recorded", async || {
                let page = dev.client.get("/api/v1/app/acme/attempt/endpoint/main").await.expect(200).json();
                (page["data"].as_array().map(Vec::len) == Some(2)).then_some(())
            })
            .await;
        }
        let printed = typed(&setting, &commands, &dev).await;
        if shown.contains("\n  ") {
            assert_eq!(printed_names.values(&printed), shown_names.values(&shown), "of this the program prints:\n{commands}\n{printed}");
        } else {
            assert_eq!(printed_names.lines(&printed), shown_names.lines(&shown), "of this the program prints:\n{commands}\n{printed}");
        }
        compared += 1;
    }
    assert!(compared >= 5, "the tour has become short: {compared} samples");
    dev.process.signal(Signal::TERM);
    assert_eq!(dev.process.ended().await.code(), Some(0), "{}", dev.process.log());
}
