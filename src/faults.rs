//! Faults of what a person wrote, all of them in one message. Stands beneath everything, and imports nothing.

use std::fmt;

/// Every fault found in one input, in the order in which they were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

// === impl Faults ===

impl Faults {
    pub fn push(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    pub fn extend(&mut self, others: Faults) {
        self.0.extend(others.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each by itself.
    pub fn into_list(self) -> Vec<String> {
        self.0
    }

    /// `Ok(value)` if nothing was found.
    pub fn or<T>(self, value: T) -> Result<T, Faults> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Notes the fault of a `Result` and goes on without its value.
    pub fn note<T, E: fmt::Display>(&mut self, result: Result<T, E>, what: impl fmt::Display) -> Option<T> {
        result.map_err(|error| self.push(format!("{what}: {error}"))).ok()
    }
}

impl From<String> for Faults {
    fn from(fault: String) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Faults {}

/// The known name that a mistyped one most likely meant, if any is near.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name));
    scored.filter(|(distance, name)| *distance <= 1 + name.len() / 4).min().map(|(_, name)| name)
}

/// `unknown <what> "<wrong>"`, with the nearest known name, or all of them where none is near.
pub fn unknown<'a>(what: &str, wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(wrong, known.clone()) {
        Some(name) => format!("unknown {what} `{wrong}`: did you mean `{name}`?"),
        None => {
            let known: Vec<_> = known.into_iter().map(|name| format!("`{name}`")).collect();
            format!("unknown {what} `{wrong}`: known are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(nearest("adress", ["address", "namespace"]), Some("address"));
        assert_eq!(nearest("refesh", ["refresh", "size"]), Some("refresh"));
        assert_eq!(nearest("colour", ["address", "size"]), None);
    }
}
