//! The keys of the identities: which method takes which, and what each needs.

use super::super::identity::{Application, Header, Id, Login, Managed, Place, Proof};
use crate::{faults, host::HostFiles, settings::Settings};
use azure_core::http::Url;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

const IMDS: &str = "http://169.254.169.254/";
const CLI_TOKEN: &str = "/etc/dso/azure-token.json";

const METHODS: [&str; 4] = ["managed", "workload", "certificate", "cli"];

/// Every key, and the methods that take it.
const KEYS: [(&str, &[&str]); 11] = [
    ("auth.client_id", &["managed", "workload", "certificate"]),
    ("auth.object_id", &["managed"]),
    ("auth.identity_id", &["managed"]),
    ("auth.metadata_endpoint", &["managed"]),
    ("auth.identity_endpoint", &["managed"]),
    ("auth.identity_header", &["managed"]),
    ("auth.identity_header_file", &["managed"]),
    ("auth.tenant_id", &["workload", "certificate"]),
    ("auth.token_file", &["workload", "cli"]),
    ("auth.certificate_file", &["certificate"]),
    ("auth.key_file", &["certificate"]),
];

/// By what key a user-assigned identity is named.
const IDENTITIES: [(&str, MakeId); 3] =
    [("auth.client_id", Id::Client), ("auth.object_id", Id::Object), ("auth.identity_id", Id::Resource)];

type MakeId = fn(String) -> Id;

/// What was given, and where faults are noted.
struct Keys<'a> {
    given: BTreeMap<&'static str, Zeroizing<String>>,
    settings: &'a mut Settings,
    host: &'a HostFiles,
}

/// The identity that the settings describe; faults are noted there.
pub fn parse(settings: &mut Settings, host: &HostFiles) -> Option<Login> {
    let named = settings.string("auth.method");
    let mut given = BTreeMap::new();
    for (key, _) in KEYS {
        given.extend(settings.string(key).map(|text| (key, Zeroizing::new(text))));
    }
    // As the SDKs do where nothing says which: by what there is.
    let found = match () {
        () if given.contains_key("auth.certificate_file") => "certificate",
        () if given.contains_key("auth.token_file") => "workload",
        () => "managed",
    };
    let method = named.as_deref().unwrap_or(found);
    let Some(method) = METHODS.into_iter().find(|known| *known == method) else {
        return settings.wrong("auth.method", &format!("names an {}", faults::unknown("method", method, METHODS)));
    };
    let mut keys = Keys { given, settings, host };
    keys.refuse_foreign(method);
    match method {
        "workload" => keys.workload(),
        "certificate" => keys.certificate(),
        "cli" => Some(Login::Cli(keys.path("auth.token_file").unwrap_or_else(|| CLI_TOKEN.into()))),
        _ => keys.managed().map(Login::Managed),
    }
}

// === impl Keys ===

impl Keys<'_> {
    fn refuse_foreign(&mut self, method: &str) {
        for (key, methods) in KEYS {
            if !methods.contains(&method) && self.given.contains_key(key) {
                let methods: Vec<_> = methods.iter().map(|method| format!("\"{method}\"")).collect();
                self.wrong::<()>(key, &format!("belongs to `auth.method = {}`", methods.join("` or `")));
            }
        }
    }

    fn managed(&mut self) -> Option<Managed> {
        let ids: Vec<_> = IDENTITIES.iter().filter_map(|(key, make)| Some((*key, make(self.text(key)?)))).collect();
        if let [(first, _), (second, _), ..] = ids[..] {
            return self.wrong(first, &format!("and `{second}` both name an identity: keep one"));
        }
        let place = self.place()?;
        Some(Managed::new(place, ids.into_iter().next().map(|(_, id)| id)))
    }

    fn place(&mut self) -> Option<Place> {
        let machine = self.endpoint("auth.metadata_endpoint").unwrap_or_else(|| Url::parse(IMDS).ok());
        let endpoint = self.endpoint("auth.identity_endpoint");
        let text = self.given.get("auth.identity_header").cloned();
        let file = self.path("auth.identity_header_file");
        let header = match (text, file) {
            (Some(_), Some(_)) => {
                return self.wrong("auth.identity_header", "and `auth.identity_header_file` are both given: keep one");
            }
            (Some(text), None) => Some(Header::Text(text)),
            (None, file) => file.map(Header::File),
        };
        match (endpoint, header) {
            (None, None) => machine.map(Place::Machine),
            (Some(url), Some(header)) => Some(Place::Endpoint { url: url?, header }),
            (Some(_), None) => self.wrong(
                "auth.identity_endpoint",
                "needs `auth.identity_header_file` (or IDENTITY_HEADER): an endpoint without, as Azure Arc's, is not served",
            ),
            (None, Some(_)) => self.wrong("auth.identity_endpoint", "is needed with the identity header"),
        }
    }

    fn workload(&mut self) -> Option<Login> {
        let (tenant, client) = (self.id("auth.tenant_id", "the tenant's"), self.id("auth.client_id", "the identity's"));
        let file = self.needed_path("auth.token_file", "the file of the federated token");
        Some(Login::Application(Application { tenant: tenant?, client: client?, proof: Proof::Federated(file?) }))
    }

    fn certificate(&mut self) -> Option<Login> {
        let (tenant, client) =
            (self.id("auth.tenant_id", "the tenant's"), self.id("auth.client_id", "the application's"));
        let certificate = self.needed_path("auth.certificate_file", "the PEM file of the certificate, with its key");
        let key = self.path("auth.key_file").or_else(|| certificate.clone());
        let proof = Proof::Certificate { certificate: certificate?, key: key? };
        Some(Login::Application(Application { tenant: tenant?, client: client?, proof }))
    }

    /// An id or a domain's name, as it may stand in an address.
    fn id(&mut self, key: &'static str, whose: &str) -> Option<String> {
        let legal = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        match self.text(key) {
            Some(text) if legal(&text) => Some(text),
            Some(_) => self.wrong(key, "must be an id such as 00000000-0000-0000-0000-000000000000"),
            None => self.wrong(key, &format!("is needed: {whose} id")),
        }
    }

    fn needed_path(&mut self, key: &'static str, what: &str) -> Option<PathBuf> {
        if !self.given.contains_key(key) {
            return self.wrong(key, &format!("is needed: {what}"));
        }
        self.path(key)
    }

    fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        match self.host.locate(Path::new(&path)) {
            Ok(_) => Some(path),
            Err(fault) => self.wrong(key, &format!("cannot be used: {fault}")),
        }
    }

    /// `None` where none is given.
    fn endpoint(&mut self, key: &'static str) -> Option<Option<Url>> {
        let url = Url::parse(&self.text(key)?).ok().filter(|url| {
            let plain = url.username().is_empty() && url.password().is_none();
            url.scheme() == "http"
                && url.host_str().is_some()
                && plain
                && url.query().is_none()
                && url.fragment().is_none()
        });
        Some(url.or_else(|| self.wrong(key, "must be a plain `http://` URL: such an endpoint speaks no TLS")))
    }

    fn text(&self, key: &str) -> Option<String> {
        self.given.get(key).map(|text| text.to_string())
    }

    fn wrong<T>(&mut self, key: &str, fault: &str) -> Option<T> {
        self.settings.wrong(key, fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Login, String> {
        let mut settings = Settings::new("x", text.parse().unwrap());
        let login = super::parse(&mut settings, &HostFiles::on_host("/nowhere"));
        settings.finish(|| login.unwrap()).map_err(|faults| faults.to_string())
    }

    fn fault(text: &str) -> String {
        parse(text).err().unwrap()
    }

    #[test]
    fn without_a_method_it_is_that_of_what_there_is() {
        let Login::Managed(Managed { place: Place::Machine(url), id: None, .. }) = parse("").unwrap() else { panic!() };
        assert_eq!(url.as_str(), "http://169.254.169.254/");
        let Login::Managed(managed) = parse("auth.client_id = 'a'").unwrap() else { panic!() };
        assert_eq!(managed.id, Some(Id::Client("a".into())));
        let both = "auth.tenant_id = 't'\nauth.client_id = 'c'\n";
        let login = |more: &str| parse(&format!("{both}{more}")).unwrap();
        let Login::Application(workload) = login("auth.token_file = '/etc/dso/t'") else { panic!() };
        assert!(matches!(workload.proof, Proof::Federated(_)));
        let Login::Application(certificate) = login("auth.certificate_file = '/etc/dso/c'") else { panic!() };
        assert!(matches!(certificate.proof, Proof::Certificate { certificate, key } if certificate == key));
        assert!(matches!(parse("auth.method = 'cli'").unwrap(), Login::Cli(file) if file == Path::new(CLI_TOKEN)));
    }

    #[test]
    fn a_key_of_another_method_and_one_that_is_missing_are_told() {
        assert_eq!(
            fault("auth.tenant_id = 't'\nauth.object_id = 'o'\nauth.client_id = 'c'"),
            "x: `auth.tenant_id` belongs to `auth.method = \"workload\"` or `\"certificate\"`; \
             x: `auth.client_id` and `auth.object_id` both name an identity: keep one"
        );
        assert_eq!(
            fault("auth.method = 'workload'"),
            "x: `auth.tenant_id` is needed: the tenant's id; x: `auth.client_id` is needed: the identity's id; \
             x: `auth.token_file` is needed: the file of the federated token"
        );
        assert!(fault("auth.method = 'certificate'\nauth.tenant_id = 'a/b'").contains("must be an id such as"));
    }

    #[test]
    fn an_identity_endpoint_and_its_header_need_one_another() {
        let url = "auth.identity_endpoint = 'http://127.0.0.1:1/msi/token'\n";
        assert!(fault(url).contains("as Azure Arc's, is not served"));
        assert!(fault("auth.identity_header = 'hunter2'").ends_with("is needed with the identity header"));
        let login = parse(&format!("{url}auth.identity_header_file = '/etc/dso/h'")).unwrap();
        assert!(matches!(
            login,
            Login::Managed(Managed { place: Place::Endpoint { header: Header::File(_), .. }, .. })
        ));
        let told = fault("auth.identity_endpoint = 'https://a'\nauth.identity_header = 'hunter2'");
        assert!(told.contains("must be a plain `http://` URL") && !told.contains("hunter2"), "{told}");
    }
}
