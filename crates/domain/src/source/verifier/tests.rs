//! Verifiers against what the services publish, and, where they publish no example, against Python's `hmac`.

use super::*;
use crate::mac::{Encoding, Hash};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

fn verify(verifier: &Verifier, headers: &[(&str, &str)], body: &str, now: i64) -> Result<(), Refusal> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    verifier.verify(&Incoming { headers: &headers, body: body.as_bytes(), ..Incoming::default() }, at(now))
}

fn secret(text: &str) -> SharedSecret {
    SharedSecret::new(text)
}

fn mismatch(name: &str) -> Result<(), Refusal> {
    Err(Refusal::Mismatch(name.to_owned()))
}

fn is_malformed(result: Result<(), Refusal>, name: &str) -> bool {
    matches!(result, Err(Refusal::Malformed { name: found, .. }) if found == name)
}

/// The example of GitHub's documentation.
#[test]
fn the_example_of_github_is_verified() {
    let github = Verifier::Body(SignedBody::github(), secret("It's a Secret to Everybody"));
    let digits = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let sent = |value: &str, body| verify(&github, &[("X-Hub-Signature-256", value)], body, 0);
    let name = "x-hub-signature-256";
    assert_eq!(sent(&format!("sha256={digits}"), "Hello, World!"), Ok(()));
    assert_eq!(sent(&format!("sha256={digits}"), "Hello, World"), mismatch(name));
    assert_eq!(sent(&format!("sha256={}", &digits[2..]), "Hello, World!"), mismatch(name));
    for bad in [digits, "sha256=", "sha256=xyz", "sha1=757107ea", ""] {
        assert!(sent(bad, "Hello, World!").is_err_and(|refusal| refusal != Refusal::Missing(name.to_owned())), "{bad}");
    }
    assert_eq!(verify(&github, &[("x-hub-signature", digits)], "Hello, World!", 0), Err(Refusal::Missing(name.to_owned())));
    let signature = format!("sha256={digits}");
    let twice = [(name, signature.as_str()), (name, signature.as_str())];
    assert!(is_malformed(verify(&github, &twice, "Hello, World!", 0), name), "nobody could say which one counts");
}

#[test]
fn shopify_x_and_any_hmac_are_verified() {
    let body = r#"{"id":820982911946154508}"#;
    let shopify = Verifier::Body(SignedBody::shopify(), secret("hush"));
    let signature = "qBvrsZF7RfB1iS6BX6IHqJTp5L911P7intnPeTPsH0I=";
    assert_eq!(verify(&shopify, &[("X-Shopify-Hmac-SHA256", signature)], body, 0), Ok(()));
    assert_eq!(verify(&shopify, &[("X-Shopify-Hmac-SHA256", signature)], "{}", 0), mismatch("x-shopify-hmac-sha256"));

    let x = Verifier::Body(SignedBody::x(), secret("consumer-secret"));
    let sent = ("x-twitter-webhooks-signature", "sha256=eoKjzeO72//XwD1oTSk4p7tixM6TIW5C9SzJ6SXuJpw=");
    assert_eq!(verify(&x, &[sent], r#"{"for_user_id":"2244994945"}"#, 0), Ok(()));
    let answer = answer_to_challenge(&secret("consumer-secret"), "challenge_string");
    assert_eq!(answer, "sha256=S/mG8E9n5SjoGuCqHguvP8K8uuu5ogCPF0dOpIdyZlk=");

    let own = SignedBody { header: "X-Sig".to_owned(), prefix: String::new(), hash: Hash::Sha512, encoding: Encoding::Base64 };
    let own = Verifier::Body(own, secret("hush"));
    let signature = "I5JnVnnY9fziEQRIuJRTDtEGa07pTsnSI5P8yHmVQU07hQMw0M2m+CdarRkN/0aQqF0OG+kPBGmCbwto/MyrOA==";
    assert_eq!(verify(&own, &[("x-sig", signature)], body, 0), Ok(()));
    assert!(is_malformed(verify(&own, &[("x-sig", "!")], body, 0), "X-Sig"));
}

#[test]
fn stripe_is_verified_in_its_time() {
    let stripe = Verifier::Stripe(secret("whsec_test_secret"), TOLERANCE);
    let body = r#"{"id":"evt_1","object":"event"}"#;
    let (good, other) = (
        "654b43d3508ecadb3f8cefc4bc7d3d2bdc5ba9e03bf2c89b2d0657a8e24e4543",
        "f2783299b863163c989be2c558e1890b6148873ed7c8ce7e2cc77266ce5bb45e",
    );
    let sent = |value: String, now| verify(&stripe, &[("Stripe-Signature", &value)], body, now);
    let (t, name) = (1_492_774_577, "stripe-signature");
    for value in [format!("t={t},v1={good}"), format!("t={t},v1={other},v1={good},v0={other}"), format!("v1={good}, t={t}")] {
        assert_eq!(sent(value, t), Ok(()));
    }
    for away in [-300, 300] {
        assert_eq!(sent(format!("t={t},v1={good}"), t + away), Ok(()));
    }
    for away in [-301, 301, i64::from(u32::MAX)] {
        let stale = Refusal::Stale { name: name.to_owned(), seconds: away, tolerance: 300 };
        assert_eq!(sent(format!("t={t},v1={good}"), t + away), Err(stale));
    }
    assert_eq!(sent(format!("t={t},v1={other}"), t + 9999), mismatch(name), "a stranger does not hear about our clock");
    assert_eq!(sent(format!("t={},v1={good}", t + 1), t), mismatch(name));
    for bad in [
        format!("v1={good}"),
        format!("t={t}"),
        format!("t={t},v0={good}"),
        format!("t=+{t},v1={good}"),
        "t=Infinity,v1=00".to_owned(),
        String::new(),
    ] {
        assert!(is_malformed(sent(bad.clone(), t), name), "{bad}");
    }
}

/// The example of Slack's documentation.
#[test]
fn the_example_of_slack_is_verified() {
    let slack = Verifier::Slack(secret("8f742231b10e8888abcd99yyyzzz85a5"), TOLERANCE);
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let signature = ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503");
    let stamp = ("X-Slack-Request-Timestamp", "1531420618");
    let sent = |headers: &[(&str, &str)], now| verify(&slack, headers, body, now);
    assert_eq!(sent(&[signature, stamp], 1_531_420_618), Ok(()));
    assert_eq!(sent(&[signature, ("X-Slack-Request-Timestamp", "1531420619")], 1_531_420_618), mismatch("x-slack-signature"));
    assert!(matches!(sent(&[signature, stamp], 1_531_420_919), Err(Refusal::Stale { seconds: 301, .. })));
    assert_eq!(sent(&[signature], 0), Err(Refusal::Missing("x-slack-request-timestamp".to_owned())));
    assert!(is_malformed(sent(&[signature, ("x-slack-request-timestamp", "now")], 0), "x-slack-request-timestamp"));
    assert!(is_malformed(sent(&[("x-slack-signature", "v1=00"), stamp], 0), "x-slack-signature"));
}

/// The example of the Standard Webhooks specification's reference libraries.
#[test]
fn the_example_of_standard_webhooks_is_verified_under_both_names() {
    let standard = Verifier::Standard(standard_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret"), TOLERANCE);
    let (body, now) = (r#"{"test": 2432232314}"#, 1_614_265_330);
    let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    for family in ["webhook", "svix"] {
        let [id, stamp, name] = ["id", "timestamp", "signature"].map(|part| format!("{family}-{part}"));
        let sent = |signature: &str, now| {
            let headers = [(id.as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek"), (&stamp, "1614265330"), (&name, signature)];
            verify(&standard, &headers, body, now)
        };
        assert_eq!(sent(good, now), Ok(()));
        assert_eq!(sent(&format!("v1a,AAAA v1,AAAA {good}"), now), Ok(()));
        assert_eq!(sent("v1,AAAA", now), mismatch(&name));
        assert!(is_malformed(sent("v2,AAAA", now), &name));
        assert!(matches!(sent(good, now - 301), Err(Refusal::Stale { seconds: -301, .. })));
        assert_eq!(verify(&standard, &[(&name, good)], body, now), Err(Refusal::Missing(id.clone())));
    }
    assert_eq!(verify(&standard, &[], body, now), Err(Refusal::Missing("webhook-id".to_owned())));
    assert!(standard_secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_some());
    for bad in ["", "whsec_", "whsec_not base64"] {
        assert!(standard_secret(bad).is_none(), "{bad}");
    }
}

#[test]
fn passwords_and_keys_are_compared_whole() {
    let basic = Verifier::Basic { user: "aladdin".to_owned(), password: secret("open:sesame") };
    let sent = |value: &str| verify(&basic, &[("Authorization", value)], "", 0);
    // `aladdin:open:sesame`, `aladdin:open`, `alad:din:open:sesame`, `aladdin`.
    assert_eq!(sent("Basic YWxhZGRpbjpvcGVuOnNlc2FtZQ=="), Ok(()));
    assert_eq!(sent("basic  YWxhZGRpbjpvcGVuOnNlc2FtZQ=="), Ok(()));
    assert_eq!(sent("Basic YWxhZGRpbjpvcGVu"), mismatch("authorization"));
    assert_eq!(sent("Basic YWxhZDpkaW46b3BlbjpzZXNhbWU="), mismatch("authorization"));
    for bad in ["Basic YWxhZGRpbg==", "Basic !", "Bearer YWxhZGRpbjpvcGVuOnNlc2FtZQ==", "Basic", ""] {
        assert!(is_malformed(sent(bad), "authorization"), "{bad}");
    }

    let header = Verifier::ApiKey(ApiKeyPlace::Header("X-Token".to_owned()), secret("k1"));
    assert_eq!(verify(&header, &[("x-token", "k1")], "", 0), Ok(()));
    assert_eq!(verify(&header, &[("x-token", "k12")], "", 0), mismatch("X-Token"));
    assert_eq!(verify(&header, &[], "", 0), Err(Refusal::Missing("X-Token".to_owned())));
    let bearer = Verifier::ApiKey(ApiKeyPlace::Bearer, secret("k1"));
    assert_eq!(verify(&bearer, &[("authorization", "Bearer k1")], "", 0), Ok(()));
    assert_eq!(verify(&bearer, &[("authorization", "Bearer k2")], "", 0), mismatch("authorization"));
    assert!(is_malformed(verify(&bearer, &[("authorization", "k1")], "", 0), "authorization"));
    let query = Verifier::ApiKey(ApiKeyPlace::Query("key".to_owned()), secret("k1"));
    let asked = |pairs: &[(&str, &str)]| query.verify(&Incoming { query: pairs, ..Incoming::default() }, at(0));
    assert_eq!(asked(&[("key", "k1")]), Ok(()));
    assert_eq!(asked(&[("key", "k2"), ("key", "k1")]), mismatch("key"));
    assert_eq!(asked(&[("Key", "k1")]), Err(Refusal::Missing("key".to_owned())));
    assert_eq!(verify(&Verifier::None, &[], "", 0), Ok(()));
}

#[test]
fn secrets_are_named_as_what_must_not_be_kept_and_never_shown() {
    let credentials = |verifier: &Verifier| (verifier.credentials().headers, verifier.credentials().parameters);
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let basic = Verifier::Basic { user: "u".to_owned(), password: secret("s3cret") };
    assert_eq!(credentials(&basic), (names(&["authorization"]), vec![]));
    let key = |place| Verifier::ApiKey(place, secret("s3cret"));
    assert_eq!(credentials(&key(ApiKeyPlace::Bearer)), (names(&["authorization"]), vec![]));
    assert_eq!(credentials(&key(ApiKeyPlace::Header("X-Token".to_owned()))), (names(&["x-token"]), vec![]));
    assert_eq!(credentials(&key(ApiKeyPlace::Query("Key".to_owned()))), (vec![], names(&["Key"])));
    assert_eq!(credentials(&Verifier::Body(SignedBody::github(), secret("s3cret"))), (vec![], vec![]));
    assert!(!format!("{basic:?}{:?}", key(ApiKeyPlace::Bearer)).contains("s3cret"));
    let refusal = verify(&basic, &[("authorization", "Basic dTp3cm9uZw==")], "", 0).expect_err("wrong").to_string();
    assert!(!refusal.contains("s3cret") && !refusal.contains("wrong"), "{refusal}");
}
