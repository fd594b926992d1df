//! docs/receivers.md shows what the examples do, lists what a webhook carries, and computes from what the program waits.

use std::{collections::BTreeSet, fs, time::Duration};

use domain::{health::DISABLES_AFTER, retry::RetrySchedule};
use serde_json::json;
use support::{App, Options, Receiver};

use super::{example, root};

fn document() -> String {
    fs::read_to_string(root().join("docs/receivers.md")).expect("docs/receivers.md")
}

/// The blocks of code in one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    let block = |rest: &'a str| rest.split_once("\n```").map(|(block, _)| block);
    text.split(&begin).skip(1).map(|rest| block(rest).expect("a block ends")).collect()
}

/// The lines without the indentation that all of them have.
fn lines(text: &str) -> Vec<String> {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let depth = lines().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines().map(|line| line[depth..].trim_end().to_owned()).collect()
}

#[test]
fn the_code_in_the_document_is_the_code_of_the_examples() {
    let text = document();
    let files = [("rust", vec!["receiver.rs"]), ("python", vec!["receiver.py"]), ("js", vec!["receiver.js"])];
    let sql = ("sql", vec!["schema.sql", "claim.sql", "forget.sql"]);
    for (language, names) in files.into_iter().chain([sql]) {
        let blocks = blocks(&text, language);
        assert!(!blocks.is_empty(), "the document shows no {language}");
        let sources: Vec<_> = names.iter().map(|name| example(name)).collect();
        for block in blocks {
            let wanted = lines(block);
            let is_in = |source: &String| {
                let all: Vec<_> = source.lines().filter(|line| !line.trim().is_empty()).collect();
                all.windows(wanted.len()).any(|window| lines(&window.join("\n")) == wanted)
            };
            assert!(sources.iter().any(is_in), "this is not in {names:?}:\n{block}");
        }
    }
}

#[test]
fn an_example_is_short_and_the_document_names_it() {
    let text = document();
    let folder = fs::read_dir(root().join("examples/receivers")).expect("examples");
    for path in folder.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let is_program = ["rs", "py", "js", "sql"].iter().any(|extension| path.extension().is_some_and(|other| other == *extension));
        assert!(!is_program || example(name).lines().count() <= 80, "{name} is too long to be an example");
        assert!(!is_program || text.contains(&format!("(../examples/receivers/{name})")), "the document does not name {name}");
    }
}

#[tokio::test]
async fn the_document_lists_every_header_of_a_webhook_and_no_other() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint_with(&json!({ "url": receiver.url("/"), "headers": { "X-Team": "billing" } })).await;
    customer.publish(&json!({ "n": 1 })).await;
    let webhook = receiver.received(1).await.remove(0);
    let sent: BTreeSet<_> = webhook.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).filter(|name| name != "x-team").collect();
    let text = document();
    let (_, table) = text.split_once("\n| header | ").expect("a table of headers");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    assert_eq!(names.map(str::to_ascii_lowercase).collect::<BTreeSet<_>>(), sent);
}

/// `1 d 9 h 8 min 6 s`, without what is zero.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_document_computes_from_the_schedule_that_is_the_default() {
    let (schedule, timeout) = (RetrySchedule::default(), Options::default().request_timeout);
    let waits: Duration = schedule.0.iter().sum();
    let told = schedule.longest_from(1, timeout);
    let attempts = u32::try_from(schedule.0.len()).expect("a few") + 1;
    let longest = schedule.horizon() + timeout * attempts;
    let more = longest.saturating_sub(told);
    let facts = [
        format!("| {} |", words(waits)),
        format!("| {} |", words(waits * 12 / 10)),
        format!("| {attempts} × {} = {} |", words(timeout), words(timeout * attempts)),
        format!("| **{}** |", words(told)),
        format!("| {} |", words(more)),
        format!("| {} |", words(DISABLES_AFTER)),
        format!("| **{}** |", words(longest + DISABLES_AFTER)),
    ];
    let text = document();
    for fact in facts {
        assert!(text.contains(&fact), "the document does not say `{fact}`");
    }
    assert!(more + DISABLES_AFTER < Duration::from_hours(6 * 24), "what the examples add to the header is enough");
}
