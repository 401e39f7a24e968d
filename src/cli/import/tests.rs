//! Files of every shape: what is not a secret's stays byte for byte.

use super::{Plan, Project, Tree, compose::Found, names::Choice, rewrite::rewrite, verify};
use proptest::prelude::*;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A line, and whether an import may change it.
type Line = (String, bool);

#[derive(Clone, Debug)]
struct Variable {
    secret: bool,
    style: u8,
    comment: bool,
    before: u8,
}

#[derive(Clone, Debug)]
struct Service {
    list: bool,
    variables: Vec<Variable>,
    volumes: u8,
    after: u8,
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let variable = (any::<bool>(), 0..6u8, any::<bool>(), 0..3u8)
        .prop_map(|(secret, style, comment, before)| Variable { secret, style, comment, before });
    let service = (any::<bool>(), prop::collection::vec(variable, 1..5), 0..5u8, 0..4u8)
        .prop_map(|(list, variables, volumes, after)| Service { list, variables, volumes, after });
    prop::collection::vec(service, 1..4)
}

/// The lines of a file, and the secrets in it: service, name, value.
fn file(services: &[Service], step: usize, top: u8) -> (Vec<Line>, Vec<(String, String, String)>) {
    let (mut lines, mut secrets) = (vec![("# head  ".to_owned(), false), ("services:".into(), false)], Vec::new());
    let pad = |depth: usize| " ".repeat(step * depth);
    for (number, service) in services.iter().enumerate() {
        let name = format!("s{number}");
        lines.push((format!("{}{name}:   # a service", pad(1)), false));
        lines.push((format!("{}image:  \"x: y\"", pad(2)), false));
        lines.push((format!("{}environment:", pad(2)), false));
        for (at, variable) in service.variables.iter().enumerate() {
            match variable.before {
                1 => lines.push((format!("{}# of {at}: PASSWORD=1", pad(3)), false)),
                2 => lines.push((String::new(), false)),
                _ => {}
            }
            let key = if variable.secret { format!("A{at}_PASSWORD") } else { format!("A{at}_PLAIN") };
            let value = format!("vä{number}{at}");
            let comment = if variable.comment { "  # why: 'x'" } else { "" };
            let mut push = |text: String| lines.push((text, variable.secret));
            let found = match (service.list, variable.style) {
                (true, 0 | 1) => {
                    push(format!("{}- '{key}={value}'{comment}", pad(3)));
                    value
                }
                (true, 2) => {
                    push(format!("{}- \"{key}={value}\"{comment}", pad(3)));
                    value
                }
                (true, _) => {
                    push(format!("{}- {key}={value}{comment}", pad(3)));
                    value
                }
                (false, 0) => {
                    push(format!("{}{key}: '{value}''s'{comment}", pad(3)));
                    format!("{value}'s")
                }
                (false, 1) => {
                    push(format!("{}\"{key}\":   \"{value}\\t\"{comment}", pad(3)));
                    format!("{value}\t")
                }
                (false, 2) => {
                    push(format!("{}{key}: |{comment}", pad(3)));
                    push(format!("{}{value}: [", pad(4)));
                    push(format!("{}  # no comment", pad(4)));
                    format!("{value}: [\n  # no comment\n")
                }
                (false, 3) => {
                    push(format!("{}{key}: &a{number}{at} {value}{comment}", pad(3)));
                    value
                }
                (false, _) => {
                    push(format!("{}{key}: {value}{comment}", pad(3)));
                    value
                }
            };
            if variable.secret {
                secrets.push((name.clone(), key, found));
            }
        }
        let any = service.variables.iter().any(|variable| variable.secret);
        match service.volumes {
            1 => lines.extend([(format!("{}volumes: # here", pad(2)), false), (format!("{}- a:/a", pad(3)), false)]),
            2 => lines.extend([(format!("{}volumes:", pad(2)), false), (format!("{}- a:/a  # end", pad(2)), false)]),
            3 => lines.push((format!("{}volumes: [a:/a, ]   # flow", pad(2)), any)),
            _ => {}
        }
        match service.after {
            1 => lines.push((format!("{}# after", pad(2)), false)),
            2 => lines.extend([(String::new(), false), (format!("{}restart: always", pad(2)), false)]),
            3 => lines.push(("  ".into(), false)),
            _ => {}
        }
    }
    match top {
        1 => lines.extend([("volumes:".to_owned(), false), (format!("{}a: {{}}  # a", pad(1)), false)]),
        2 => lines.push(("volumes:   # none yet".into(), false)),
        3 => lines.extend([("volumes:".to_owned(), false), (format!("{}a:", pad(1)), false), ("# end".into(), false)]),
        _ => {}
    }
    (lines, secrets)
}

fn project<'a>(text: &'a str, choice: &'a Choice) -> Project<'a> {
    let tree = Tree::parse(text).unwrap_or_else(|fault| panic!("{fault}: {text}"));
    Project { text, tree, folder: PathBuf::from("/nonexistent"), lookup: &|_| None, choice }
}

fn taken(found: &Found) -> Vec<(String, String, String)> {
    let all = found.services.iter().flat_map(|service| service.secrets.iter().map(move |secret| (service, secret)));
    let text = |value: &Option<Zeroizing<Vec<u8>>>| String::from_utf8(value.as_ref().unwrap().to_vec()).unwrap();
    all.map(|(service, secret)| (service.name.clone(), secret.name.clone(), text(&secret.value))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn untouched_lines_are_identical(services in services(), step in prop::sample::select(vec![2usize, 3, 4]),
                                     top in 0..4u8, windows in any::<bool>(), ends in any::<bool>()) {
        let (lines, secrets) = file(&services, step, top);
        let newline = if windows { "\r\n" } else { "\n" };
        let mut text = lines.iter().map(|(line, _)| line.as_str()).collect::<Vec<_>>().join(newline);
        if ends {
            text.push_str(newline);
        }
        let choice = Choice::default();
        let before = project(&text, &choice);
        let found = before.read().unwrap();
        prop_assert_eq!(&taken(&found), &secrets);
        if secrets.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::new(None, "x").unwrap_or_else(|_| unreachable!());
        plan.assign(&secrets.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_bytes())).collect::<Vec<_>>());
        let (edits, notes) = rewrite(&before, &found, &plan).unwrap();
        prop_assert!(notes.is_empty(), "{:?}", notes);
        let new = edits.apply(&text).unwrap();
        prop_assert!(verify(&project(&new, &choice)).is_ok());
        let mut rest = new.split(newline);
        for (line, _) in lines.iter().filter(|(_, touched)| !touched) {
            prop_assert!(rest.any(|other| other == line), "{:?} is not in its place in\n{}", line, &*new);
        }
        // Nothing of the other line end comes in.
        prop_assert_eq!(windows, new.matches('\n').count() == new.matches("\r\n").count());
        let diff = edits.diff(&text).unwrap();
        for (_, _, value) in &secrets {
            prop_assert!(!new.contains(value.trim_end()) && !diff.contains(value.trim_end()), "{}", diff);
        }
    }
}
