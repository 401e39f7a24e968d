//! Strict reading of a table of settings: every key is asked for by name, and what is left over is a
//! fault that names the nearest key. Stands beneath everything.

use crate::{
    faults::{self, Faults},
    host::HostFiles,
    units,
};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};
use toml::{Table, Value};

/// A table that is being read. Dotted names (`auth.method`) reach into tables of the table.
pub struct Settings {
    place: String,
    table: Table,
    known: Vec<&'static str>,
    faults: Faults,
}

// === impl Settings ===

impl Settings {
    /// `place` is how messages name the table: `[provider.vault]`.
    pub fn new(place: impl Into<String>, table: Table) -> Self {
        Self { place: place.into(), table, known: Vec::new(), faults: Faults::default() }
    }

    pub fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => self.wrong(key, "must be a text that is not empty"),
        }
    }

    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.string(key).map(PathBuf::from)
    }

    /// A path on the host that can be seen from here; where it leads is found anew at each use.
    pub fn host_path(&mut self, key: &'static str, host: &HostFiles) -> Option<PathBuf> {
        let path = self.path(key)?;
        match host.locate(&path) {
            Ok(_) => Some(path),
            Err(fault) => self.wrong(key, &format!("cannot be used: {fault}")),
        }
    }

    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(value) => Some(value),
            _ => self.wrong(key, "must be true or false"),
        }
    }

    /// A time such as `30s` or `1m30s`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        match units::duration(&text) {
            Ok(duration) => Some(duration),
            Err(_) => self.wrong(key, "must be a time such as `30s` or `1m30s`"),
        }
    }

    /// Whether the key is given, whatever its value; it counts as asked for.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        match self.take(key)? {
            Value::Integer(number) if u32::try_from(number).is_ok_and(|number| range.contains(&number)) => {
                u32::try_from(number).ok()
            }
            _ => self.wrong(key, &format!("must be a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// Notes a fault of `key`.
    pub fn wrong<T>(&mut self, key: &str, fault: &str) -> Option<T> {
        self.faults.push(format!("{}: `{key}` {fault}", self.place));
        None
    }

    /// Notes the faults of a table that was read by itself.
    pub fn faulty<T>(&mut self, faults: Faults) -> Option<T> {
        self.faults.extend(faults);
        None
    }

    /// A value made by `make`, unless there were faults; keys that nobody asked for are faults.
    pub fn finish<T>(mut self, make: impl FnOnce() -> T) -> Result<T, Faults> {
        let mut left = Vec::new();
        leaves("", &self.table, &mut left);
        for key in left {
            let fault = faults::unknown("key", &key, self.known.iter().copied());
            self.faults.push(format!("{}: {fault}", self.place));
        }
        if self.faults.is_empty() { Ok(make()) } else { Err(self.faults) }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        remove(&mut self.table, key)
    }
}

fn remove(table: &mut Table, key: &str) -> Option<Value> {
    let Some((outer, inner)) = key.split_once('.') else { return table.remove(key) };
    let nested = table.get_mut(outer)?.as_table_mut()?;
    let found = remove(nested, inner);
    if nested.is_empty() {
        table.remove(outer);
    }
    found
}

fn leaves(prefix: &str, table: &Table, found: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(nested) if !nested.is_empty() => leaves(&format!("{prefix}{key}."), nested, found),
            _ => found.push(format!("{prefix}{key}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_come_at_once_and_an_unknown_key_names_the_nearest() {
        let table = "adress = 'x'\nauth.methd = 'y'\nverify = 3".parse().unwrap();
        let mut settings = Settings::new("[provider.v]", table);
        settings.string("address");
        settings.string("auth.method");
        settings.boolean("verify");
        let faults = settings.finish(|| ()).unwrap_err().to_string();
        assert_eq!(
            faults,
            "[provider.v]: `verify` must be true or false; \
             [provider.v]: unknown key `adress`: did you mean `address`?; \
             [provider.v]: unknown key `auth.methd`: did you mean `auth.method`?"
        );
    }
}
