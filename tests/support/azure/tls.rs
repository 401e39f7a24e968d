//! A test's own CA, and the certificate of its vaults and of Entra ID. By the program `openssl`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub struct Certificates {
    home: tempfile::TempDir,
}

// === impl Certificates ===

impl Certificates {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=dso-test-ca"];
        openssl(home.path(), &[&ca[..], &ec].concat(), b"");
        let leaf = ["req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key", "-out", "cert"];
        let names = ["-subj", "/CN=vault.test", "-addext", "subjectAltName=DNS:*.vault.test,IP:127.0.0.1"];
        let leaf = [&leaf[..], &ec, &names, &["-addext", "basicConstraints=critical,CA:FALSE"]].concat();
        openssl(home.path(), &leaf, b"");
        Self { home }
    }

    /// A client's own certificate and its key in one PEM file, and its public key.
    pub fn client(&self) -> (String, String) {
        let home = self.home.path();
        let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=dso-test"];
        openssl(home, &[&make[..], &["-keyout", "client.key", "-out", "client.pem"]].concat(), b"");
        let public = openssl(home, &["x509", "-in", "client.pem", "-pubkey", "-noout"], b"");
        // Whoever wants it in a file puts it there: it is searched for.
        let take = |name| {
            let text = fs::read_to_string(home.join(name)).unwrap();
            fs::remove_file(home.join(name)).unwrap();
            text
        };
        (take("client.key") + &take("client.pem"), String::from_utf8(public).unwrap())
    }

    pub fn ca_file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.home.path().join("cert"), self.home.path().join("key"))
    }
}

pub fn openssl(home: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let (worked, output) = try_openssl(home, arguments, input);
    assert!(worked, "openssl {arguments:?}: {}", String::from_utf8_lossy(&output));
    output
}

pub fn try_openssl(home: &Path, arguments: &[&str], input: &[u8]) -> (bool, Vec<u8>) {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    (done.status.success(), if done.status.success() { done.stdout } else { done.stderr })
}
