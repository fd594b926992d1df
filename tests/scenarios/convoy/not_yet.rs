//! Operations of the contract that are not there: they say so, and are told from paths that nobody knows.

use std::collections::BTreeSet;

use support::{App, Project, contract};

/// Every operation of the contract: method and path.
fn operations() -> Vec<(&'static str, &'static str)> {
    contract::listed(include_str!("operations.txt"))
}

#[tokio::test]
async fn an_operation_that_is_not_there_says_that_it_is_not_supported_yet() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let ours: BTreeSet<_> = contract::operations().into_iter().collect();
    assert_eq!(operations().len(), 68);
    for (method, template) in operations() {
        if ours.contains(&(method.to_owned(), template.to_owned())) {
            continue;
        }
        let path = template.replace("{projectID}", &project.id);
        let segments: Vec<_> = path.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment }).collect();
        let path = segments.join("/");
        let answer = app.client.request(method, &path).unchecked().bytes("{}").send().await.expect(501).json();
        assert_eq!(
            (answer["status"].as_bool(), answer["message"].as_str()),
            (Some(false), Some(format!("not supported yet: {method} {template}").as_str()))
        );
        let anonymous = app.client.anonymous().request(method, &path).unchecked().send().await.expect(401).json();
        assert_eq!(anonymous["status"], false);
    }
}

#[tokio::test]
async fn what_is_nowhere_is_told_in_the_words_of_the_dialect_that_is_spoken_there() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    for (method, path, status) in [
        ("GET", project.path("/no-such-thing"), 404),
        ("PATCH", project.path(""), 405),
        ("DELETE", "/api/v1/projects".to_owned(), 405),
        ("GET", "/api/v1/projects//endpoints".to_owned(), 404),
    ] {
        let request = app.client.request(method, &path).unchecked().header("x-convoy-version", "2024-04-01");
        let answer = request.send().await.expect(status);
        assert_eq!((answer.json()["status"].as_bool(), answer.json()["message"].is_string()), (Some(false), true), "{method} {path}");
        assert_eq!(answer.header("x-convoy-version"), Some("2024-04-01"), "{method} {path}");
    }
    let svix = app.client.request("GET", "/api/v1/projectsx").unchecked().header("x-convoy-version", "2024-04-01").send().await.expect(404);
    assert_eq!((svix.text("code").as_str(), svix.header("x-convoy-version")), ("not_found", None));
    let told = app.client.request("GET", "/api/v1/projects").header("x-convoy-version", "2025-11-24").send().await.expect(200);
    assert_eq!(told.header("x-convoy-version"), Some("2025-11-24"));
    assert_eq!(app.client.get("/api/v1/projects").await.expect(200).header("x-convoy-version"), None);
}

#[test]
fn the_page_names_each_operation_and_claims_none_that_is_not_there() {
    let page = include_str!("../../../docs/convoy-compatibility.md");
    let ours: BTreeSet<_> = contract::operations().into_iter().collect();
    for (method, template) in operations() {
        let begin = format!("| `{method} {template}` | ");
        let row =
            page.lines().find_map(|line| line.strip_prefix(&begin)).unwrap_or_else(|| panic!("no row: run scripts/convoy-table refresh"));
        let is_there = ours.contains(&(method.to_owned(), template.to_owned()));
        assert!(is_there || row.starts_with("501: "), "{method} {template} is not there, but the page says: {row}");
    }
}
