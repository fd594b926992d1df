//! Redirects are answers, not instructions.

use serde_json::json;
use support::{App, Options, Receiver, Reply};

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let app = App::with(Options { schedule: Vec::new(), ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let target = Receiver::start().await;
    let codes = [301, 302, 303, 307, 308];
    let customer = app.customer().await;
    for code in codes {
        let path = format!("/{code}");
        receiver.on(&path, [Reply::status(code).header("Location", &target.url("/"))]);
        customer.endpoint(&receiver.url(&path)).await;
    }
    let message = customer.publish(&json!({ "n": 1 })).await;
    let attempts = customer.attempts(&message, codes.len()).await;
    let mut seen: Vec<_> = attempts.iter().map(|attempt| (attempt.code(), attempt.status().to_owned())).collect();
    seen.sort();
    assert_eq!(seen, codes.map(|code| (i64::from(code), "fail".to_owned())));
    assert_eq!(target.connections(), 0);
}
