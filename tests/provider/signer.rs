//! Identities that a test makes up: signed tokens, and certificates of an authority. By the program `openssl`, so that
//! what is made is not checked by what made it.

use crate::support::bao::unique;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

/// Who signs tokens (ES256 would need its signature rewritten: RS256).
pub struct Signer {
    home: tempfile::TempDir,
}

/// Who signs clients' certificates.
pub struct Authority {
    home: tempfile::TempDir,
}

// === impl Signer ===

impl Signer {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key"];
        openssl(home.path(), &key, b"");
        Self { home }
    }

    /// For `jwt_validation_pubkeys`.
    pub fn public_key(&self) -> String {
        String::from_utf8(openssl(self.home.path(), &["pkey", "-in", "key", "-pubout"], b"")).unwrap()
    }

    /// A token with these claims that expires in `seconds`.
    pub fn token(&self, claims: Value, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let mut all = json!({"iat": now.min(now + seconds) - 1, "exp": now + seconds, "jti": unique()});
        all.as_object_mut().unwrap().extend(claims.as_object().cloned().unwrap());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&all));
        let signature = openssl(self.home.path(), &["dgst", "-sha256", "-sign", "key"], signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

// === impl Authority ===

impl Authority {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let subject = format!("/CN=ca-{}", unique());
        let make =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"];
        openssl(home.path(), &[&make[..], &["-subj", &subject]].concat(), b"");
        Self { home }
    }

    pub fn certificate(&self) -> String {
        fs::read_to_string(self.home.path().join("ca.pem")).unwrap()
    }

    /// A client's certificate and its key, in PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let (home, subject) = (self.home.path(), format!("/CN={name}"));
        let request = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "request", "-subj", &subject];
        openssl(home, &request, b"");
        fs::write(home.join("extensions"), "extendedKeyUsage=clientAuth\n").unwrap();
        let sign =
            ["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1"];
        openssl(home, &[&sign[..], &["-extfile", "extensions", "-out", "cert"]].concat(), b"");
        let read = |file| fs::read_to_string(home.join(file)).unwrap();
        (read("cert"), read("key"))
    }
}

fn openssl(home: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
