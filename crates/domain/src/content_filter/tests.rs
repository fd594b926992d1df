//! What filters match, what they refuse, and that they agree with the naive telling of their language.

use std::cell::Cell;

use proptest::{collection, prelude::*, sample::select, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use super::*;

fn body(filter: &Value) -> Result<ContentFilter, InvalidFilter> {
    ContentFilter::parse(json!({ "body": filter }))
}

fn matches(filter: &Value, payload: &Value) -> bool {
    let compiled = body(filter).unwrap_or_else(|invalid| panic!("{filter}: {invalid}"));
    let subject = Subject { body: Some(payload), ..Subject::default() };
    let is_match = compiled.matches(&subject);
    assert_eq!(compiled.explain(&subject).is_none(), is_match, "{filter} explains {payload}");
    is_match
}

#[test]
fn each_operator_takes_what_it_should() {
    let payload = json!({"type": "weekly", "age": 10, "price": 10.5, "vip": true, "gone": null, "city": ["lagos", "abuja"],
        "day": "2024-05-06", "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 5}], "deep": {"a": {"b": "c"}}});
    let yes = [
        json!({}),
        json!({"type": "weekly", "age": 10.0}),
        json!({"city": "abuja"}),
        json!({"city": ["lagos", "abuja"]}),
        json!({"deep": {"a": {"b": "c"}}}),
        json!({"deep.a": {"b": {"$eq": "c"}}}),
        json!({"age": {"$gt": 9, "$lt": 11}, "price": {"$gte": 10.5, "$lte": 10.5}}),
        json!({"day": {"$gte": "2024-01-01", "$lt": "2025"}}),
        json!({"type": {"$neq": "daily"}, "gone": null}),
        json!({"type": {"$in": ["daily", "weekly"]}, "age": {"$in": ["10", 10.0]}}),
        json!({"type": {"$nin": ["daily"]}, "city": {"$nin": ["accra"]}}),
        json!({"nothing": {"$exist": false}, "gone": {"$exist": true}}),
        json!({"type": {"$regex": "^week"}, "vip": true}),
        json!({"items.$.n": {"$gt": 4}, "items.0.sku": "a", "city.$": {"$regex": "^la"}}),
        json!({"items.$": {"$eq": {"n": 1.0, "sku": "a"}}}),
        json!({"$or": [{"type": "daily"}, {"age": {"$gt": 5}}]}),
        json!({"$and": [{"age": {"$gte": 10}}, {"$or": [{"type": "weekly"}, {"city": "accra"}]}]}),
        json!({"deep": {"$or": [{"x": 1}, {"a": {"$exist": true}}]}}),
        json!({"age": {"$or": [{"$lt": 5}, {"$gt": 9}]}}),
    ];
    let no = [
        json!({"type": "daily"}),
        json!({"type": "weekly", "age": 11}),
        json!({"nothing": {"$neq": 1}}),
        json!({"nothing": {"$nin": [1]}}),
        json!({"nothing": null}),
        json!({"gone": {"$exist": false}}),
        json!({"age": "10"}),
        json!({"age": {"$gt": "1"}}),
        json!({"type": {"$lt": 5}}),
        json!({"city": {"$eq": "lagos"}}),
        json!({"city": {"$nin": ["accra", "abuja"]}}),
        json!({"items.$": {"sku": "a", "n": 5}, "items.$.n": 7}),
        json!({"items.2": {"$exist": true}}),
        json!({"age": {"$regex": "10"}}),
        json!({"$or": [{"type": "daily"}, {"age": {"$gt": 50}}]}),
        json!({"age": 10, "type": {"$regex": "WEEK"}}),
    ];
    for filter in yes {
        assert!(matches(&filter, &payload), "{filter} matches");
    }
    for filter in no {
        assert!(!matches(&filter, &payload), "{filter} does not match");
    }
    assert!(matches(&json!({"$.id": 2}), &json!([{"id": 1}, {"id": 2}])), "a payload may be an array");
    assert!(!matches(&json!({"a": {"$exist": true}}), &json!("text")));
}

#[test]
fn headers_query_and_path_are_text() {
    let subject = Subject {
        headers: &[("X-Source", "billing"), ("x-count", "10"), ("X-Tag", "a"), ("x-tag", "b"), ("x-empty", "")],
        query: &[("region", "eu"), ("a.b", "true"), ("n", "1e1")],
        path: "/v2/orders",
        body: None,
    };
    let filter = |headers: Value, query: Value, path: Value| {
        let filter = ContentFilter::parse(json!({"headers": headers, "query": query, "path": path, "body": null})).expect("a filter");
        assert!(!filter.needs_body());
        filter.matches(&subject)
    };
    let none = || json!({});
    assert!(filter(json!({"x-source": "billing", "X-Count": {"$gt": 9}}), none(), none()));
    assert!(filter(json!({"x-tag": "b", "x-empty": "", "x-other": {"$exist": false}}), none(), none()));
    assert!(filter(json!({"x-count": 10.0, "x-tag": {"$in": ["c", "a"]}}), none(), none()));
    assert!(!filter(json!({"x-source": "Billing"}), none(), none()), "values keep their case");
    assert!(!filter(json!({"x-other": {"$neq": "a"}}), none(), none()));
    assert!(filter(none(), json!({"region": {"$regex": "^e"}, "a.b": true, "n": 10}), none()));
    assert!(filter(none(), json!({"n": {"$in": [10]}, "a.b": {"$in": [true]}}), none()));
    assert!(!filter(none(), json!({"REGION": "eu"}), none()), "names of parameters keep their case");
    assert!(filter(none(), none(), json!({"path": {"$regex": "^/v2/"}})));
    assert!(!filter(none(), none(), json!({"path": "/v1/orders"})));
}

#[test]
fn only_a_filter_on_the_body_needs_it() {
    assert!(!body(&json!({})).expect("a filter").needs_body());
    let filter = body(&json!({"$or": [{"$and": [{"a": {"$exist": false}}]}]})).expect("a filter");
    assert!(filter.needs_body());
    assert!(filter.matches(&Subject::default()), "nothing is in a payload that is not JSON");
    assert!(!body(&json!({"a": 1})).expect("a filter").matches(&Subject::default()));
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    let bad = [
        (json!([]), "body", Problem::NotAnObject),
        (json!({"a": {}}), "body.a", Problem::Empty),
        (json!({"a": {"$like": 1}}), "body.a.$like", Problem::UnknownOperator),
        (json!({"$not": 1}), "body.$not", Problem::UnknownOperator),
        (json!({"$eq": 1}), "body.$eq", Problem::WithoutField("$eq".to_owned())),
        (json!({"a": {"$gt": 1, "b": 2}}), "body.a.b", Problem::Mixed),
        (json!({"a": {"$gt": 1, "$or": []}}), "body.a.$or", Problem::Mixed),
        (json!({"a": {"$exist": false, "$neq": 2}}), "body.a", Problem::AbsentAndMore),
        (json!({"$or": []}), "body.$or", Problem::NotClauses),
        (json!({"$or": [{"a": 1}, 2]}), "body.$or[1]", Problem::NotClauses),
        (json!({"$and": [{}]}), "body.$and[0]", Problem::Empty),
        (json!({"a": {"$in": "b"}}), "body.a.$in", Problem::NotAList),
        (json!({"a": {"$nin": []}}), "body.a.$nin", Problem::NotAList),
        (json!({"a": {"b.c": {"$gt": true}}}), "body.a.b.c.$gt", Problem::Unordered),
        (json!({"a": {"$exist": 1}}), "body.a.$exist", Problem::NotABoolean),
        (json!({"a": {"$regex": 1}}), "body.a.$regex", Problem::NotAPattern),
        (json!({"a..b": 1}), "body.a..b", Problem::EmptyPart),
        (json!({"": 1}), "body.", Problem::EmptyPart),
    ];
    for (filter, at, problem) in bad {
        assert_eq!(body(&filter).err(), Some(InvalidFilter { at: at.to_owned(), problem }), "{filter}");
    }
    let headers = |filter: Value| ContentFilter::parse(json!({ "headers": filter })).err().map(|invalid| invalid.problem);
    for nested in [json!({"a": {"b": 1}}), json!({"a": [1]}), json!({"a": {"$in": [{}]}}), json!({"a": {"$or": [{"b": 1}]}})] {
        assert_eq!(headers(nested), Some(Problem::TextOnly));
    }
    let path = ContentFilter::parse(json!({"path": {"url": "/"}}));
    assert_eq!(path.expect_err("unknown").to_string(), "path.url: is not known here: the whole path of the request is the field `path`");
}

#[test]
fn a_document_has_scopes_and_is_kept_as_it_was_written() {
    let refused = |document: Value| ContentFilter::parse(document).expect_err("refused");
    assert_eq!(refused(json!("body")), InvalidFilter { at: "filter".to_owned(), problem: Problem::NoScopes });
    assert_eq!(refused(json!({"amount": 5})), InvalidFilter { at: "amount".to_owned(), problem: Problem::UnknownScope });
    assert_eq!(refused(json!({"body": {"a": "x".repeat(MAX_WRITTEN)}})).problem, Problem::Large);
    let written = json!({"body": {"a": {"$gt": 1.50}}, "headers": {}});
    let (filter, stored) = (ContentFilter::parse(written.clone()).expect("a filter"), ContentFilter::stored(written.clone()));
    assert_eq!((filter.written(), &filter), (&written, &stored));
    assert_eq!((filter.clauses(), stored.clauses()), (Some(1), None));
    for a in [1, 2] {
        let payload = json!({ "a": a });
        let subject = Subject { body: Some(&payload), ..Subject::default() };
        assert_eq!([filter.matches(&subject), stored.matches(&subject)], [a == 2; 2]);
    }
    assert_eq!(stored.clauses(), Some(1));
    assert!(ContentFilter::stored(json!({"body": {"$later": 1}})).matches(&Subject::default()), "too much is better than nothing");
}

#[test]
fn what_could_become_expensive_is_refused() {
    let problem = |filter: &Value| body(filter).err().map(|invalid| invalid.problem);
    let nested = |levels: usize| (1..levels).fold(json!({"a": 1}), |inner, _| json!({"$and": [inner]}));
    assert_eq!(problem(&nested(MAX_DEPTH)), None);
    assert_eq!(problem(&nested(MAX_DEPTH + 1)), Some(Problem::Deep));
    assert_eq!(problem(&nested(120)), Some(Problem::Deep));
    let clauses = |n: usize| json!({"$or": vec![json!({"a": 1}); n]});
    assert_eq!(problem(&clauses(MAX_CLAUSES)), None);
    assert_eq!(problem(&clauses(MAX_CLAUSES + 1)), Some(Problem::ManyClauses));
    let values = |n: usize, value: Value| json!({"a": {"$in": vec![value; n]}});
    assert_eq!(problem(&values(MAX_VALUES, json!(1))), None);
    assert_eq!(problem(&values(MAX_VALUES + 1, json!(1))), Some(Problem::ManyValues));
    assert_eq!(problem(&values(MAX_CLAUSES, json!([]))), Some(Problem::ManyClauses));
    let patterns = |n: usize| json!({"$and": vec![json!({"a": {"$regex": "^x"}}); n]});
    assert_eq!(problem(&patterns(MAX_PATTERNS)), None);
    assert_eq!(problem(&patterns(MAX_PATTERNS + 1)), Some(Problem::ManyPatterns));
}

#[test]
fn an_explanation_names_the_clause_and_what_was_found() {
    let filter = json!({"type": "a", "$or": [{"n": {"$gt": 5}}, {"items.$.n": 9}, {"x": {"$exist": true}}]});
    let filter = body(&filter).expect("a filter");
    let explain = |payload: &Value| filter.explain(&Subject { body: Some(payload), ..Subject::default() }).map(|why| why.to_string());
    assert_eq!(explain(&json!({"type": "a", "n": 6})), None);
    assert_eq!(explain(&json!({"type": "b", "n": 6})).expect("a reason"), r#"body.type asks for "a", but is "b""#);
    assert_eq!(
        explain(&json!({"type": "a", "n": 3, "items": [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]})).expect("a reason"),
        r#"body.$or: no alternative holds: body.$or[0].n asks for {"$gt":5}, but is 3; body.$or[1].items.$.n asks for 9, but is 1 and 2 and 3; body.$or[2].x asks for {"$exist":true}, but is absent"#,
    );
    let long = filter.explain(&Subject { body: Some(&json!({"type": "é".repeat(1000), "n": 6})), ..Subject::default() }).expect("a reason");
    assert_eq!(long.found, Found::Values(vec![format!("\"{}…", "é".repeat(99))]));
    let Some(Found::Alternatives(reasons)) = filter.explain(&Subject::default()).map(|why| why.found) else { panic!("no alternatives") };
    assert_eq!(reasons[0].found, Found::NoPayload);
}

fn scalar() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(1.0),
        json!(1.25),
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_992.0),
        json!("x"),
        json!("xy"),
        json!("1"),
    ])
}

fn value(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            collection::vec((select(names), inner), 0..4).prop_map(object),
        ]
    })
}

fn object<N: Into<String>>(members: Vec<(N, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect::<Map<_, _>>())
}

const NAMES: &[&str] = &["a", "b", "a.b", "0"];

fn operators() -> impl Strategy<Value = Value> {
    let operand = || prop_oneof![3 => scalar().boxed(), 1 => value(NAMES).boxed()];
    let ordered = || scalar().prop_filter("has an order", |value| value.is_number() || value.is_string());
    let one = prop_oneof![
        (select(vec!["$eq", "$neq"]), operand()),
        (select(vec!["$gt", "$gte", "$lt", "$lte"]), ordered()),
        (select(vec!["$in", "$nin"]), collection::vec(operand(), 1..6).prop_map(Value::Array)),
        Just(("$exist", json!(true))),
        (Just("$regex"), select(vec![json!("x"), json!("^x"), json!("^y"), json!("")])),
    ];
    prop_oneof![5 => collection::vec(one, 1..3).prop_map(object), 1 => Just(json!({"$exist": false}))]
}

fn filter() -> impl Strategy<Value = Value> {
    let field = prop_oneof![2 => operators(), 1 => value(NAMES).prop_filter("is bare", |value| !value.is_object())];
    let path = || select(vec!["a", "b", "a.b", "a.$", "a.$.b", "$", "$.a", "0", "a.0", "b.0", "b.a", "$.$", "a.a.b"]);
    let fields = move |inner: BoxedStrategy<Value>| collection::vec((path(), inner), 1..3).prop_map(object);
    fields(field.boxed()).prop_recursive(3, 12, 3, move |inner| {
        let list = || collection::vec(inner.clone(), 1..3).prop_map(Value::Array);
        prop_oneof![
            fields(inner.clone()),
            list().prop_map(|list| json!({"$or": list})),
            list().prop_map(|list| json!({"$and": list})),
            (path(), operators(), operators()).prop_map(|(path, one, two)| object(vec![(path, json!({"$or": [one, two]}))])),
        ]
    })
}

#[test]
fn filters_agree_with_the_naive_telling_of_their_language() {
    let (matched, all) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() });
    let agree = |(filter, payload): (Value, Value)| {
        let is_match = matches(&filter, &payload);
        matched.set(matched.get() + u32::from(is_match));
        all.set(all.get() + 1);
        prop_assert_eq!(is_match, naive::holds(&filter, &payload));
        Ok(())
    };
    let payload = prop_oneof![3 => collection::vec((select(NAMES), value(NAMES)), 1..5).prop_map(object), 1 => value(NAMES)];
    runner.run(&(filter(), payload), agree).expect("both tell the same");
    assert!(matched.get() > all.get() / 8, "{} of {} match: the test would prove little", matched.get(), all.get());
}
