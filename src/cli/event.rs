//! What the plugin tells of, line by line, in words.

use super::{
    format::Field,
    text::{self, Colour, Style, counted, plain},
    volume::result_colour,
};
use serde_json::{Value, json};

/// One thing that happened.
pub struct Event {
    whole: Value,
}

/// What `--format` knows of an event.
pub const FIELDS: &[Field<Event>] = &[
    field("ID", |event| event.whole["id"].to_string(), |event| event.whole["id"].clone()),
    field("Time", |event| event.text("time").into(), |event| event.whole["time"].clone()),
    field("Event", |event| event.kind().into(), |event| event.whole["event"].clone()),
    field("Volume", |event| event.volume().into(), |event| event.whole["volume"].clone()),
    field("Text", |event| event.words().0, |event| json!(event.words().0)),
];

const fn field(name: &'static str, text: fn(&Event) -> String, json: fn(&Event) -> Value) -> Field<Event> {
    Field { name, heading: name, text, json, colour: |_| Colour::None }
}

// === impl Event ===

impl Event {
    /// `None` for a line that is none.
    pub fn parse(line: &str) -> Option<Self> {
        let whole: Value = serde_json::from_str(line).ok()?;
        whole["event"].is_string().then_some(Self { whole })
    }

    pub fn kind(&self) -> &str {
        self.text("event")
    }

    pub fn volume(&self) -> &str {
        self.text("volume")
    }

    pub fn text(&self, name: &str) -> &str {
        self.whole[name].as_str().unwrap_or_default()
    }

    /// Whether a refresh that was waited for has ended, and how.
    pub fn refreshed(&self) -> Option<Result<(), String>> {
        (self.kind() == "refreshed").then(|| match self.whole["ok"] == true {
            true => Ok(()),
            false => Err(self.reasoned(self.text("result"))),
        })
    }

    /// `12:59:55  app-secrets  rotation 3 → 4 verified (poll)`
    pub fn line(&self, style: Style) -> String {
        let time = self.text("time");
        // The day is of use where the lines are of more than one: seconds are enough for a person.
        let time =
            text::time(time).map_or_else(|| time.to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string());
        let (words, colour) = self.words();
        let volume = if self.volume().is_empty() { "-" } else { self.volume() };
        format!(
            "{}  {}  {}",
            style.paint(Colour::Dim, &plain(&time)),
            style.paint(Colour::Bold, &plain(volume)),
            style.paint(colour, &plain(&words))
        )
    }

    /// What happened, in words, and how grave it is.
    pub fn words(&self) -> (String, Colour) {
        let text = |name: &str| self.text(name);
        let number = |name: &str| self.whole[name].as_u64().unwrap_or_default();
        match self.kind() {
            "mounted" => {
                let stale = if self.whole["stale"] == true { ", with the last known value" } else { "" };
                let how = if text("mount") == "joined" { " by one more container" } else { "" };
                (format!("generation {} mounted{how}{stale}", number("generation")), Colour::None)
            }
            "unmounted" if self.whole["left"] == 0 => ("unmounted: no container has it any more".into(), Colour::None),
            "unmounted" => ("unmounted by a container".into(), Colour::None),
            "mount_failed" => (format!("mount failed ({}): {}", text("class"), text("error")), Colour::Red),
            "rollout_started" => {
                let names: Vec<_> =
                    self.whole["containers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let whom = if names.is_empty() { "no container".into() } else { names.join(", ") };
                (
                    format!("rotation {} → {} begins ({}): {whom}", number("from"), number("to"), text("cause")),
                    Colour::None,
                )
            }
            "container" => {
                let result = text("result");
                let colour = if result.starts_with("failed") { Colour::Red } else { Colour::None };
                (format!("container {}: {}: {}", text("container"), text("action"), self.reasoned(result)), colour)
            }
            "decided" => {
                let result = text("result");
                let why = if text("reason").is_empty() { String::new() } else { format!(": {}", text("reason")) };
                let words = format!("rotation {} → {} {result} ({}){why}", number("from"), number("to"), text("cause"));
                (words, result_colour(result))
            }
            "stale" => (format!("stale: {}", text("error")), Colour::Yellow),
            "current" => ("current".into(), Colour::Green),
            "refreshed" => {
                let colour = if self.whole["ok"] == true { Colour::Green } else { Colour::Red };
                (format!("refresh: {}", self.reasoned(text("result"))), colour)
            }
            "label_fault" => (format!("container {}: label: {}", text("container"), text("error")), Colour::Yellow),
            "settings" => match text("fault") {
                "" => ("dso.toml is in use".into(), Colour::Green),
                fault => (format!("dso.toml is not in use: {fault}"), Colour::Red),
            },
            "lost" => (
                format!(
                    "{} were lost: they came faster than they were taken",
                    counted(number("count") as usize, "event")
                ),
                Colour::Yellow,
            ),
            kind => (format!("{kind} {}", self.rest()), Colour::None),
        }
    }

    fn reasoned(&self, result: &str) -> String {
        match self.text("reason") {
            "" => result.to_owned(),
            reason => format!("{result}: {reason}"),
        }
    }

    /// Of a kind that is not known here: whatever else it has.
    fn rest(&self) -> Value {
        let mut rest = self.whole.clone();
        if let Some(object) = rest.as_object_mut() {
            object.retain(|name, _| !["id", "time", "event", "volume"].contains(&name.as_str()));
        }
        rest
    }

    pub fn whole(&self) -> &Value {
        &self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_in_words_and_an_unknown_one_as_it_is() {
        for (fields, words) in [
            (r#""event":"mounted","generation":3,"mount":"fresh","stale":false"#, "generation 3 mounted"),
            (
                r#""event":"mounted","generation":3,"mount":"joined","stale":true"#,
                "generation 3 mounted by one more container, with the last known value",
            ),
            (r#""event":"unmounted","left":1"#, "unmounted by a container"),
            (r#""event":"unmounted","left":0"#, "unmounted: no container has it any more"),
            (r#""event":"lost","count":10"#, "10 events were lost: they came faster than they were taken"),
            (r#""event":"mount_failed","class":"denied","error":"e""#, "mount failed (denied): e"),
            (
                r#""event":"rollout_started","from":3,"to":4,"cause":"poll","containers":["a","b"]"#,
                "rotation 3 → 4 begins (poll): a, b",
            ),
            (
                r#""event":"container","container":"a","id":"1","action":"restart","result":"verified""#,
                "container a: restart: verified",
            ),
            (
                r#""event":"decided","from":3,"to":4,"cause":"poll","result":"rolled back","reason":"r""#,
                "rotation 3 → 4 rolled back (poll): r",
            ),
            (r#""event":"stale","error":"e""#, "stale: e"),
            (r#""event":"current""#, "current"),
            (r#""event":"refreshed","ok":true,"result":"unchanged""#, "refresh: unchanged"),
            (r#""event":"label_fault","container":"a","error":"e""#, "container a: label: e"),
            (r#""event":"settings","fault":null"#, "dso.toml is in use"),
            (r#""event":"settings","fault":"f""#, "dso.toml is not in use: f"),
            (r#""event":"new","x":1"#, r#"new {"x":1}"#),
        ] {
            let line = format!(r#"{{"id":1,"time":"2026-11-27T13:00:00.123Z","volume":"v",{fields}}}"#);
            let event = Event::parse(&line).unwrap();
            assert_eq!(event.words().0, words);
            let style = Style { terminal: false, colour: false };
            assert_eq!(event.line(style), format!("2026-11-27T13:00:00Z  v  {words}"));
        }
        assert!(Event::parse("{}").is_none() && Event::parse("x").is_none());
    }

    #[test]
    fn the_end_of_a_refresh_is_good_or_bad() {
        let ended = |fields: &str| Event::parse(&format!("{{\"event\":{fields}}}")).unwrap().refreshed();
        assert_eq!(ended(r#""current""#), None);
        assert_eq!(ended(r#""refreshed","ok":true"#), Some(Ok(())));
        let failed = ended(r#""refreshed","ok":false,"result":"rolled back","reason":"r""#);
        assert_eq!(failed, Some(Err("rolled back: r".into())));
    }
}
