//! Operations of the contract that are not there: they say so, and are told from paths that nobody knows.

use std::collections::BTreeSet;

use support::{App, contract};

/// Every operation of the contract: method and path.
fn operations() -> Vec<(&'static str, &'static str)> {
    contract::listed(include_str!("operations.txt"))
}

#[tokio::test]
async fn an_operation_that_is_not_there_says_that_it_is_not_supported_yet() {
    let app = App::start().await;
    let ours: BTreeSet<_> = contract::operations().into_iter().collect();
    let mut tried = 0;
    for (method, template) in operations() {
        if ours.contains(&(method.to_owned(), template.to_owned())) {
            continue;
        }
        let segments: Vec<_> = template.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment }).collect();
        let path = segments.join("/");
        for path in [path.clone(), format!("{path}/")] {
            let answer = app.client.request(method, &path).unchecked().bytes("{}").send().await.expect(501);
            assert_eq!(answer.text("code"), "not_supported_yet");
            assert_eq!(answer.text("detail"), format!("not supported yet: {method} {template}"));
            let anonymous = app.client.anonymous().request(method, &path).unchecked().send().await.expect(401);
            assert_eq!(anonymous.text("code"), "authentication_failed");
        }
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
    let unknown = app.client.request("GET", "/api/v1/no-such-thing").unchecked().send().await.expect(404);
    assert_eq!(unknown.text("detail"), "there is no operation at this path");
    let wrong_method = app.client.request("DELETE", "/api/v1/app").unchecked().send().await.expect(405);
    assert_eq!(wrong_method.text("code"), "method_not_allowed");
}
