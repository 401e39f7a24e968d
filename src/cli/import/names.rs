//! Which variables hold secrets, judged by their names and by what their values look like.

use url::Url;

/// Words of a name that tell a secret.
const TELLING: [&str; 16] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PASS",
    "PWD",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "KEY",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "DSN",
    "SALT",
    "PEPPER",
    "PRIVATE",
];

/// The same at the end of a word: `PGPASSWORD`, `DBPASS`.
const ENDINGS: [&str; 5] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY"];

/// Last words that make a name tell of something about the secret, and not the secret.
const ABOUT: [&str; 24] = [
    "FILE",
    "PATH",
    "DIR",
    "ID",
    "NAME",
    "TTL",
    "EXPIRY",
    "EXPIRES",
    "EXPIRATION",
    "LIFETIME",
    "LENGTH",
    "HEADER",
    "ENABLED",
    "TYPE",
    "ALGORITHM",
    "ALG",
    "MIN",
    "MAX",
    "ISSUER",
    "AUDIENCE",
    "POLICY",
    "HOST",
    "PORT",
    "REQUIRED",
];

/// Values that switch something, and are no secret whatever the name.
const SWITCHES: [&str; 11] = ["", "true", "false", "yes", "no", "on", "off", "0", "1", "none", "null"];

/// What a person said of which variables are secrets.
#[derive(Default)]
pub struct Choice {
    /// If not empty, these and no others.
    pub only: Vec<String>,
    pub except: Vec<String>,
}

// === impl Choice ===

impl Choice {
    pub fn takes(&self, name: &str, value: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|known| known == name);
        match self.only.is_empty() {
            _ if among(&self.except) => false,
            true => is_secret(name, value),
            false => among(&self.only),
        }
    }
}

/// Whether a variable most likely holds a secret.
pub fn is_secret(name: &str, value: &str) -> bool {
    if SWITCHES.contains(&value.to_ascii_lowercase().as_str()) {
        return false;
    }
    has_password(value) || value.contains("PRIVATE KEY-----") || tells(name)
}

fn tells(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['_', '.', '-']).filter(|word| !word.is_empty()).collect();
    if words.contains(&"PUBLIC") || words.last().is_some_and(|last| ABOUT.contains(last)) {
        return false;
    }
    words.iter().any(|word| TELLING.contains(word) || ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

/// A URL with a password in it, or a connection string of words such as `password=…`.
fn has_password(value: &str) -> bool {
    let in_url =
        value.contains("://") && Url::parse(value).is_ok_and(|url| url.password().is_some_and(|p| !p.is_empty()));
    let assigned = value.split([';', ' ', '?', '&']).any(|part| {
        let (key, word) = part.split_once('=').unwrap_or_default();
        matches!(key.trim().to_ascii_lowercase().as_str(), "password" | "pwd") && !word.trim().is_empty()
    });
    in_url || assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_tell() {
        for (name, value) in [
            ("POSTGRES_PASSWORD", "x"),
            ("PGPASSWORD", "x"),
            ("DB_PASS", "x"),
            ("SECRET_KEY_BASE", "x"),
            ("JWT_SECRET", "x"),
            ("API_TOKEN", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("STRIPE_API_KEY", "x"),
            ("secretKey.pass", "x"),
            ("SENTRY_DSN", "https://abc@sentry.example/1"),
            ("DATABASE_URL", "postgres://u:p@h/db"),
            ("CONNECTION", "Server=db;User Id=sa;Password=x"),
            ("CERT", "-----BEGIN PRIVATE KEY-----\nx"),
        ] {
            assert!(is_secret(name, value), "{name}");
        }
        for (name, value) in [
            ("POSTGRES_USER", "app"),
            ("KEYCLOAK_HOST", "x"),
            ("MONKEY", "x"),
            ("POSTGRES_PASSWORD_FILE", "/run/secrets/x"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("JWT_PUBLIC_KEY", "x"),
            ("TOKEN_TTL", "3600"),
            ("PASSWORD_MIN_LENGTH", "8"),
            ("ALLOW_EMPTY_PASSWORD", "yes"),
            ("MYSQL_ROOT_PASSWORD", ""),
            ("DATABASE_URL", "postgres://h/db"),
            ("COMPASS", "north"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
    }

    #[test]
    fn a_person_knows_better() {
        let choice = Choice { only: vec!["PORT".into()], except: vec![] };
        assert!(choice.takes("PORT", "80") && !choice.takes("DB_PASSWORD", "x"));
        let choice = Choice { only: vec![], except: vec!["DB_PASSWORD".into()] };
        assert!(!choice.takes("DB_PASSWORD", "x") && choice.takes("DB2_PASSWORD", "x"));
    }
}
