//! nginx with its certificate in a volume: told by a signal, or by a command.

use super::{
    inspected::assert_same,
    load::{Load, connect, get},
    stage::Stage,
};
use crate::support::{NGINX, SOON, wait_for};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs, io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

const CONF: &str = "user user;\nworker_processes 2;\nerror_log stderr;\ndaemon off;\nevents {}\n\
    http { access_log off; keepalive_timeout 60s; server { listen 443 ssl;\n\
    ssl_certificate /secrets/cert.pem; ssl_certificate_key /secrets/key.pem;\n\
    location / { return 200 ok; } } }\n";
const ROTATIONS: usize = 3;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// OpenBao as the authority that makes the certificates, and a client that trusts it alone.
struct Authority<'a> {
    stage: &'a Stage,
    trust: Arc<ClientConfig>,
}

// === impl Authority ===

impl<'a> Authority<'a> {
    fn new(stage: &'a Stage) -> Self {
        let root = json!({"common_name": "dso test", "key_type": "ec", "ttl": "24h"});
        let role = json!({"allow_any_name": true, "key_type": "ec", "ttl": "1h"});
        stage.server.api("POST", "sys/mounts/pki", json!({"type": "pki"}));
        let root = stage.server.api("POST", "pki/root/generate/internal", root);
        stage.server.api("POST", "pki/roles/web", role);
        let mut roots = RootCertStore::empty();
        roots.add(der(&root["data"]["certificate"])).unwrap();
        let trust = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { stage, trust: Arc::new(trust) }
    }

    /// Puts a new certificate and its key into the secret; the certificate, as a client names it.
    fn renew(&self) -> String {
        let made = self.stage.server.api("POST", "pki/issue/web", json!({"common_name": "web.test"}));
        let made = &made["data"];
        let fields = json!({"cert.pem": made["certificate"], "key.pem": made["private_key"]});
        self.stage.server.put("app", fields);
        name(&der(&made["certificate"]))
    }

    fn connect(trust: &Arc<ClientConfig>, address: SocketAddr) -> io::Result<Tls> {
        let client = ClientConnection::new(Arc::clone(trust), "web.test".try_into().unwrap());
        let mut stream = StreamOwned::new(client.map_err(io::Error::other)?, connect(address)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// Each request on a connection of its own; answers with the certificate that it was shown.
    fn fresh(&self, address: SocketAddr) -> impl FnMut() -> Result<String, String> + use<> {
        let trust = Arc::clone(&self.trust);
        move || {
            let request = || {
                let stream = Self::connect(&trust, address)?;
                let shown = shown(&stream);
                get(stream, false).map(|_| shown)
            };
            request().map_err(|error: io::Error| error.to_string())
        }
    }

    /// All on one connection as long as that lives. A server may close it between two requests; then the request is
    /// made once more on a new one, as HTTP lets a client do that has not seen the start of an answer.
    fn keeping(&self, address: SocketAddr) -> impl FnMut() -> Result<String, String> + use<> {
        let (trust, mut kept) = (Arc::clone(&self.trust), None::<Tls>);
        move || {
            let request = |stream: Tls| {
                let shown = shown(&stream);
                get(stream, true).map(|(_, stream)| (shown, stream))
            };
            let again = |error: &io::Error| {
                use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
            };
            let answer = match kept.take().map(request) {
                Some(Err(error)) if again(&error) => Self::connect(&trust, address).and_then(request),
                Some(answer) => answer,
                None => Self::connect(&trust, address).and_then(request),
            };
            let (shown, stream) = answer.map_err(|error| error.to_string())?;
            kept = stream;
            Ok(shown)
        }
    }
}

/// The certificate of the server: all its bytes.
fn shown(stream: &Tls) -> String {
    name(&stream.conn.peer_certificates().expect("a certificate")[0])
}

fn name(certificate: &CertificateDer<'_>) -> String {
    certificate.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn der(pem: &Value) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_str().unwrap().as_bytes()).unwrap()
}

/// nginx, told of new certificates by `label`, under load through three rotations.
fn certificates_under_load(label: &str) {
    let stage = Stage::start("settle = '1s'");
    let authority = Authority::new(&stage);
    fs::write(stage.site_dir().join("tls.conf"), CONF).unwrap();
    let first = authority.renew();
    stage.engine().import(NGINX);
    let (label, site) = (format!("--label=dso.on-rotate={label}"), stage.site());
    let container = stage.run("nginx", &["--mount", &site, &label, NGINX, "nginx", "-c", "/site/tls.conf"]);
    let address = SocketAddr::from((stage.address(&container), 443));
    let mut handshake = authority.fresh(address);
    wait_for("the first certificate", SOON, || handshake() == Ok(first.clone()));
    let before = stage.inspect(&container);

    let load = Load::none().add(2, None, || authority.fresh(address)).add(2, None, || authority.keeping(address));
    let mut certificates = BTreeSet::from([first]);
    for _ in 0..ROTATIONS {
        let generation = stage.status()["generation"].as_u64().unwrap();
        let renewed = authority.renew();
        let seen = |times: usize| load.seen().count(&renewed) > times;
        wait_for("the new certificate in handshakes of the load", SOON, || seen(0));
        stage.status_when("verified", generation);
        wait_for("many requests with it", SOON, || seen(100));
        // The workers that had the old one accept no more.
        for _ in 0..20 {
            assert!(handshake() == Ok(renewed.clone()), "another certificate after the new one");
        }
        certificates.insert(renewed);
    }
    let seen = load.end();
    seen.assert_faultless(500);
    assert!(
        seen.answers.into_keys().collect::<BTreeSet<_>>() == certificates,
        "the load saw each of them, and no other"
    );
    assert_same(&stage.inspect(&container), &before);
}

#[test]
fn nginx_shows_a_new_certificate_after_a_signal_and_no_request_fails() {
    certificates_under_load("signal:HUP");
}

#[test]
fn nginx_shows_a_new_certificate_after_a_command_and_no_request_fails() {
    certificates_under_load("exec:nginx -c /site/tls.conf -s reload");
}
