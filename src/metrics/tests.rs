//! The exposition, as `promtool check metrics` would look at it, and its bounds.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Each family: its type, its help, and the names of its samples with their labels' names.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<(String, BTreeSet<String>)>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                let twice = families.insert(name.to_owned(), Family { help: help.to_owned(), ..Family::default() });
                assert!(twice.is_none(), "{name} is there twice");
            }
            ["#", "TYPE", name, kind] => families.get_mut(name).expect("HELP comes first").kind = kind.to_owned(),
            _ => {
                let sample = line.rsplit_once(' ').unwrap().0;
                let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
                let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
                let labels = labels.map(|(label, _)| label.to_owned()).collect();
                let parts = ["_bucket", "_sum", "_count"];
                let family = parts
                    .iter()
                    .find_map(|part| families.contains_key(name.strip_suffix(part)?).then(|| name.strip_suffix(part)))
                    .flatten();
                families.get_mut(family.unwrap_or(name)).expect(name).samples.push((name.to_owned(), labels));
            }
        }
    }
    families
}

/// Metrics of which every series is there.
fn all() -> String {
    let metrics = Metrics::default();
    metrics.mount_failed("timeout");
    metrics.provider_failed("vault", "timeout");
    metrics.read("vault", Duration::from_millis(3));
    metrics.checked("vault", Duration::from_millis(3));
    let now = Some(SystemTime::now());
    metrics.exposition(vec![VolumeSample { name: "v".into(), state: "stale", published: now, confirmed: now }], 0)
}

#[test]
fn names_units_types_and_helps_are_those_of_prometheus() {
    let families = families(&all());
    assert_eq!(families.len(), 20, "a family more or less: look at the dashboard and at docs/operations.md");
    for (name, family) in &families {
        assert!(name.starts_with("dso_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{name}: {}", family.help);
        assert!(!family.samples.is_empty(), "{name} has no sample");
        let is_counter = family.kind == "counter";
        assert_eq!(name.ends_with("_total"), is_counter, "{name} is a {}", family.kind);
        assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{name}");
        let units = [
            "_milliseconds",
            "_ms",
            "_minutes",
            "_kilobytes",
            "_percent",
            "_count",
            "_sum",
            "_bucket",
            "_gauge",
            "_counter",
        ];
        assert!(units.iter().all(|unit| !name.ends_with(unit)), "{name}: a base unit, and no word of the type");
        if family.kind == "histogram" || name.contains("duration") || name.contains("timestamp") || name.contains("lag")
        {
            assert!(name.ends_with("_seconds"), "{name} has its unit at its end");
        }
        for (_, labels) in &family.samples {
            let known = ["version", "result", "class", "provider", "state", "volume", "le"];
            assert!(labels.iter().all(|label| known.contains(&label.as_str())), "{name}: {labels:?}");
        }
        let samples: BTreeSet<_> = family.samples.iter().map(|(name, _)| name.as_str()).collect();
        let parts = [format!("{name}_bucket"), format!("{name}_count"), format!("{name}_sum")];
        let expected = if family.kind == "histogram" {
            parts.iter().map(String::as_str).collect()
        } else {
            BTreeSet::from([name.as_str()])
        };
        assert_eq!(samples, expected);
    }
    let series: Vec<_> = all()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect();
    assert_eq!(series.len(), series.iter().collect::<BTreeSet<_>>().len(), "a series is there twice");
}

#[test]
fn volumes_of_their_own_are_bounded_stale_ones_first_and_one_that_goes_takes_its_series_along() {
    let metrics = Metrics::default();
    let volume = |n: usize| VolumeSample {
        name: format!("v{n:04}"),
        state: if n == 999 { "stale" } else { "current" },
        published: Some(UNIX_EPOCH + Duration::from_secs(1000)),
        confirmed: Some(UNIX_EPOCH + Duration::from_millis(2500)),
    };
    let text = metrics.exposition((0..1000).map(volume).collect(), 0);
    let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!((lines("dso_volume_stale{"), lines("dso_volume_published_timestamp_seconds{")), (LISTED, LISTED));
    for line in [
        "dso_volume_stale{volume=\"v0999\"} 1",
        "dso_volume_stale{volume=\"v0198\"} 0",
        "dso_volume_confirmed_timestamp_seconds{volume=\"v0000\"} 2.5",
        "dso_volumes_unlisted 800",
        "dso_volumes{state=\"current\"} 999",
    ] {
        assert!(text.lines().any(|there| there == line), "{line}");
    }
    assert!(!text.contains("v0199"));
    let text = metrics.exposition(vec![volume(3)], 0);
    assert!(text.contains("v0003") && !text.contains("v0000") && text.contains("dso_volumes_unlisted 0"));
}

#[test]
fn events_that_were_lost_are_counted_once() {
    let metrics = Metrics::default();
    for (lost, line) in [(3, "dso_events_lost_total 3"), (3, "dso_events_lost_total 3"), (5, "dso_events_lost_total 5")]
    {
        let text = metrics.exposition(Vec::new(), lost);
        assert!(text.lines().any(|there| there == line), "{text}");
    }
}

/// Identifiers that begin with `dso_`, and what follows each.
fn names(text: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("dso_") {
        if !text[..at].ends_with(is_part) {
            let end = text[at..].find(|c| !is_part(c)).map_or(text.len(), |length| at + length);
            found.push((&text[at..end], &text[end..]));
        }
    }
    found
}

fn read(file: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// What is wrong with the metrics and labels that a text uses.
fn faults(text: &str) -> Vec<String> {
    let (exposition, text) = (all(), text.replace("\\\"", "\""));
    let samples: BTreeMap<_, _> = families(&exposition).into_values().flat_map(|family| family.samples).collect();
    let mut faults = Vec::new();
    for (name, rest) in names(&text) {
        let Some(labels) = samples.get(name) else {
            faults.push(format!("there is no {name}"));
            continue;
        };
        let Some(matchers) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for matcher in matchers.0.split("\",").filter(|matcher| !matcher.is_empty()) {
            let Some((label, values)) = matcher.split_once(['=', '!']) else {
                // A page names labels alone.
                faults.extend(
                    matcher
                        .split(',')
                        .filter(|label| !labels.contains(*label))
                        .map(|label| format!("{name} has no {label}")),
                );
                continue;
            };
            let known = |value: &str| exposition.contains(&format!("{label}=\"{value}\""));
            let mut values = values.trim_start_matches(['=', '~', '"']).trim_end_matches('"').split('|');
            // A target's own label is Prometheus'.
            if label != "instance" && (!labels.contains(label) || !values.all(known)) {
                faults.push(format!("{name} has no {matcher}"));
            }
        }
    }
    let labels: BTreeSet<_> = samples.values().flatten().map(String::as_str).chain(["instance"]).collect();
    let named = |before: &str, after: char| {
        let parts: Vec<_> = text
            .split(before)
            .skip(1)
            .filter_map(|rest| rest.split_once(after))
            .map(|(names, _)| names.to_owned())
            .collect();
        parts.into_iter().flat_map(|names| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
    };
    let used = named("by (", ')').chain(named("$labels.", '}')).chain(named("\"legendFormat\": \"{{", '}'));
    faults.extend(
        used.filter(|label| !labels.contains(label.as_str())).map(|label| format!("there is no label {label}")),
    );
    faults
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_and_labels_that_are_exported() {
    for file in ["docs/monitoring/grafana.json", "docs/monitoring/alerts.yaml"] {
        let text = read(file);
        assert!(names(&text).len() > 10 && faults(&text).is_empty(), "{file}: {:?}", faults(&text));
    }
    serde_json::from_str::<serde_json::Value>(&read("docs/monitoring/grafana.json")).unwrap();
    let wrong = r#"rate(dso_mount_total[1m]) dso_mounts_total{result="fail"} sum by (instanc) (dso_queue_wait_duration_seconds_bucket) dso_volumes{st="x"} {{ $labels.vol }}"#;
    assert_eq!(faults(wrong).len(), 5, "each kind of fault is found: {:?}", faults(wrong));
}

#[test]
fn the_operators_page_lists_every_metric_and_no_other() {
    let page = read("docs/operations.md");
    let listed: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `dso_")?.split(['`', '{']).next())
        .map(|name| format!("dso_{name}"))
        .collect();
    assert_eq!(listed, families(&all()).into_keys().collect());
    // A page names a histogram as a whole, a query its parts.
    let page = families(&all())
        .into_iter()
        .filter(|(_, family)| family.kind == "histogram")
        .fold(page, |page, (name, _)| page.replace(&format!("`{name}"), &format!("`{name}_count")));
    assert_eq!(faults(&page), Vec::<String>::new());
}

#[test]
fn each_class_of_a_mount_that_failed_begins_with_0_and_is_documented() {
    use crate::provider::ErrorKind::{
        Forbidden, Malformed, Misconfigured, NotFound, Redirected, Throttled, Timeout, Tls, Unauthenticated,
        Unavailable, Unreachable,
    };
    let (page, exposition) = (read("docs/operations.md"), Metrics::default().exposition(Vec::new(), 0));
    let of_providers = [
        Unreachable,
        Tls,
        Timeout,
        Unavailable,
        Throttled,
        Unauthenticated,
        Forbidden,
        NotFound,
        Redirected,
        Malformed,
        Misconfigured,
    ];
    let own = ["options", "render", "projection", "state", "out_of_sight"];
    for class in own.into_iter().chain(of_providers.map(crate::provider::ErrorKind::as_str)) {
        assert!(page.contains(&format!("`{class}`")), "{class} is not documented");
        let line = format!("dso_mount_failures_total{{class=\"{class}\"}} 0\n");
        assert!(exposition.contains(&line), "{class} does not begin with 0");
    }
}
