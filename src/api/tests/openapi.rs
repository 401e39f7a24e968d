//! `docs/openapi.json`, held against the server.

use super::*;
use crate::events::KINDS;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

fn schema<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().or(schema["allOf"][0]["$ref"].as_str()) {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).expect(reference),
        None => schema,
    }
}

/// Where a value is not what its schema says.
fn faults(document: &Value, wanted: &Value, value: &Value, at: &str) -> Vec<String> {
    if value.is_null() && wanted["nullable"] == true {
        return Vec::new();
    }
    let wanted = schema(document, wanted);
    let is_of_type = match wanted["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        other => panic!("{other}"),
    };
    let mut found = Vec::new();
    if !is_of_type {
        found.push(format!("{at} is no {}", wanted["type"]));
    }
    for required in wanted["required"].as_array().into_iter().flatten() {
        if value.get(required.as_str().unwrap()).is_none() {
            found.push(format!("{at} has no {required}"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match wanted["properties"].get(name) {
            Some(property) => found.extend(faults(document, property, value, &format!("{at}.{name}"))),
            None if wanted["additionalProperties"] == true => {}
            None => found.push(format!("{at}.{name} is not documented")),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(faults(document, &wanted["items"], item, &format!("{at}[]")));
    }
    found
}

#[test]
fn every_route_is_documented_and_no_other_and_so_is_every_kind_of_event() {
    let document = document();
    let documented = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    let served = control::ROUTES.iter().map(|(method, path)| (method.to_string(), (*path).to_owned()));
    assert_eq!(documented.collect::<BTreeSet<_>>(), served.collect());
    let kinds = document["components"]["schemas"]["Event"]["properties"]["event"]["enum"].as_array().unwrap();
    assert_eq!(kinds.iter().map(|kind| kind.as_str().unwrap()).collect::<Vec<_>>(), KINDS);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    assert!(KINDS.iter().all(|kind| page.contains(&format!("| `{kind}`")) || page.contains(&format!(", `{kind}` |"))));
}

#[tokio::test]
async fn every_answer_is_as_it_is_documented() {
    let (mut server, document) = (Server::start().await, document());
    server.bench.provider.put("app", "7", b"x");
    server.bench.volume("v", &[("file.x", "p://app")]).await;
    server.bench.mount("v", "a").await.unwrap();
    let good = r#"{"name":"v","options":{"file.x":"p://app"}}"#;
    let mut answered = BTreeSet::new();
    for (method, target, route, body) in [
        ("GET", "/dso/v1/version", "", ""),
        ("GET", "/dso/v1/settings", "", ""),
        ("GET", "/dso/v1/events", "", ""),
        ("GET", "/dso/v1/events?follow=false", "/dso/v1/events", ""),
        ("GET", "/dso/v1/events?x", "/dso/v1/events", ""),
        ("GET", "/dso/v1/doctor", "", ""),
        ("POST", "/dso/v1/check", "", good),
        ("POST", "/dso/v1/check", "", r#"{"name":"v","options":null}"#),
        ("POST", "/dso/v1/check", "", "[]"),
        ("POST", "/dso/v1/volumes/v/refresh", "/dso/v1/volumes/{name}/refresh", ""),
        ("POST", "/dso/v1/volumes/v/refresh?force", "/dso/v1/volumes/{name}/refresh", ""),
        ("POST", "/dso/v1/volumes/v/refresh?wait", "/dso/v1/volumes/{name}/refresh", ""),
        ("POST", "/dso/v1/volumes/v/refresh?x", "/dso/v1/volumes/{name}/refresh", ""),
        ("POST", "/dso/v1/volumes/none/refresh", "/dso/v1/volumes/{name}/refresh", ""),
        ("GET", "/healthz", "", ""),
        ("GET", "/metrics", "", ""),
    ] {
        let route = if route.is_empty() { target } else { route };
        let operation = &document["paths"][route][method.to_lowercase()];
        let mut text = String::new();
        let mut stream = server.send(method, target, body).await;
        if target.ends_with("wait") {
            answer_requests(&mut server.bench).await;
        }
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
        let content = operation["responses"][status]["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("{method} {target}: {status} is not documented"));
        let wanted =
            &content.get(kind).unwrap_or_else(|| panic!("{method} {target}: {kind} is not documented"))["schema"];
        let values: Vec<Value> = match kind {
            "application/json" => vec![serde_json::from_str(body).unwrap()],
            // Chunks stand between their lengths.
            "application/x-ndjson" => body
                .lines()
                .filter(|line| line.starts_with('{'))
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            _ => vec![body.into()],
        };
        assert!(!values.is_empty() || target.ends_with("wait"), "{target}");
        for value in values {
            assert_eq!(faults(&document, wanted, &value, target), Vec::<String>::new());
        }
        answered.insert((method.to_lowercase(), route.to_owned(), status.to_owned()));
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                // Those need a fault: what refuses them is shown in tests of their own.
                let is_shown = answered.contains(&(method.clone(), path.clone(), status.clone()));
                assert!(
                    is_shown || ["500", "503"].contains(&status.as_str()),
                    "nothing shows {method} {path}: {status}"
                );
            }
        }
    }
}

/// As the loop does.
async fn answer_requests(bench: &mut Bench) {
    loop {
        if let Some(Event::Forced(name, request)) = bench.told.recv().await {
            bench.driver.events().answer(
                "refreshed",
                name.as_str(),
                request,
                json!({"ok": true, "result": "unchanged"}),
            );
            if request == 3 {
                return;
            }
        }
    }
}

#[test]
fn a_fault_of_an_answer_is_found() {
    let document = document();
    let preview = &json!({"$ref": "#/components/schemas/Preview"});
    let wrong = json!({"ok": "yes", "files": [{"path": "x"}], "size": null, "more": 1});
    // ok is no boolean; faults is missing; five fields of the file are; more is not documented.
    assert_eq!(faults(&document, preview, &wrong, "").len(), 8);
}
