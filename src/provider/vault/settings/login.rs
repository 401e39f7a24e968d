//! The keys of the logins: which method takes which, and what each needs.

use super::super::auth::{
    AppRole, Aws, Azure, Cert, Gcp, Jwt, KeyPair, Login, ManagedIdentity, Metadata, RoleId, TokenFile,
};
use crate::{faults, host::HostFiles, provider::aws::Caller, settings::Settings};
use reqwest::Url;
use std::path::PathBuf;
use toml::{Table, Value};

const TOKEN_FILE: &str = "/etc/dso/vault-token";
const KUBERNETES_TOKEN: &str = "/etc/dso/kubernetes-token";
const AZURE_METADATA: &str = "http://169.254.169.254/";
const AZURE_RESOURCE: &str = "https://management.azure.com/";
const GOOGLE_METADATA: &str = "http://metadata.google.internal/";

const METHODS: [&str; 8] = ["token-file", "approle", "jwt", "kubernetes", "cert", "aws", "azure", "gcp"];

/// Every key, and the methods that take it.
const KEYS: [(&str, &[&str]); 19] = [
    ("auth.token_file", &["token-file"]),
    ("auth.mount", &["approle", "jwt", "kubernetes", "cert", "aws", "azure", "gcp"]),
    ("auth.role_id", &["approle"]),
    ("auth.role_id_file", &["approle"]),
    ("auth.secret_id_file", &["approle"]),
    ("auth.secret_id_wrapped", &["approle"]),
    ("auth.role", &["jwt", "kubernetes", "cert", "aws", "azure", "gcp"]),
    ("auth.jwt_file", &["jwt", "kubernetes"]),
    ("auth.cert_file", &["cert"]),
    ("auth.key_file", &["cert"]),
    ("auth.server_id", &["aws"]),
    ("auth.metadata_endpoint", &["azure", "gcp"]),
    ("auth.resource", &["azure"]),
    ("auth.client_id", &["azure"]),
    ("auth.object_id", &["azure"]),
    ("auth.identity_id", &["azure"]),
    ("auth.identity_endpoint", &["azure"]),
    ("auth.identity_header_file", &["azure"]),
    ("auth.service_account", &["gcp"]),
];

/// By what key of the settings, and what parameter of the request, a user-assigned identity of Azure is named.
const AZURE_IDENTITIES: [(&str, &str); 3] =
    [("auth.client_id", "client_id"), ("auth.object_id", "object_id"), ("auth.identity_id", "msi_res_id")];

/// The login that the settings describe; faults are noted there.
///
/// `aws` is the table `auth.aws`, whose keys are those of the provider `aws`.
pub fn parse(name: &str, settings: &mut Settings, aws: Option<Value>, host: &HostFiles) -> Option<Login> {
    let named = settings.string("auth.method");
    let method = named.as_deref().unwrap_or(METHODS[0]);
    let Some(method) = METHODS.into_iter().find(|known| *known == method) else {
        for (key, _) in KEYS {
            settings.has(key);
        }
        let fault = faults::unknown("method", method, METHODS);
        return settings.wrong("auth.method", &format!("names an {fault}"));
    };
    refuse_foreign(settings, method);
    if method != "aws" && aws.is_some() {
        settings.wrong::<()>("auth.aws", "belongs to `auth.method = \"aws\"`");
    }
    match method {
        "approle" => approle(settings, host).map(Login::AppRole),
        "jwt" => jwt(settings, host, "jwt", None).map(Login::Jwt),
        "kubernetes" => jwt(settings, host, "kubernetes", Some(KUBERNETES_TOKEN)).map(Login::Jwt),
        "cert" => cert(settings, host).map(Login::Cert),
        "aws" => aws_role(name, settings, aws, host).map(|login| Login::Aws(Box::new(login))),
        "azure" => azure(settings, host).map(Login::Azure),
        "gcp" => gcp(settings).map(Login::Gcp),
        _ => {
            let file = settings.host_path("auth.token_file", host).unwrap_or_else(|| TOKEN_FILE.into());
            Some(Login::TokenFile(TokenFile::new(file)))
        }
    }
}

fn refuse_foreign(settings: &mut Settings, method: &str) {
    for (key, methods) in KEYS {
        if !methods.contains(&method) && settings.has(key) {
            let methods: Vec<_> = methods.iter().map(|method| format!("\"{method}\"")).collect();
            settings.wrong::<()>(key, &format!("belongs to `auth.method = {}`", methods.join("` or `")));
        }
    }
}

fn approle(settings: &mut Settings, host: &HostFiles) -> Option<AppRole> {
    let mount = mount(settings, "approle");
    let text = settings.string("auth.role_id");
    let file = settings.host_path("auth.role_id_file", host);
    let role = role_id(settings, text, file);
    let file = needed_path(settings, "auth.secret_id_file", "the file that holds the SecretID", host);
    let wrapped = settings.boolean("auth.secret_id_wrapped").unwrap_or(false);
    Some(AppRole::new(mount, role?, file?, wrapped))
}

fn role_id(settings: &mut Settings, text: Option<String>, file: Option<PathBuf>) -> Option<RoleId> {
    match (text, file) {
        (Some(text), None) => Some(RoleId::Text(text)),
        (None, Some(file)) => Some(RoleId::File(file)),
        (None, None) => settings.wrong("auth.role_id", "is needed (or `auth.role_id_file`): the role's id"),
        (Some(_), Some(_)) => settings.wrong("auth.role_id", "and `auth.role_id_file` are both given: keep one"),
    }
}

fn jwt(settings: &mut Settings, host: &HostFiles, method: &'static str, default: Option<&'static str>) -> Option<Jwt> {
    let mount = mount(settings, method);
    let role = role(settings);
    let file = match default {
        Some(default) => Some(settings.host_path("auth.jwt_file", host).unwrap_or_else(|| default.into())),
        None => needed_path(settings, "auth.jwt_file", "the file that holds the JWT", host),
    };
    Some(Jwt { method, mount, role: role?, file: file? })
}

fn cert(settings: &mut Settings, host: &HostFiles) -> Option<Cert> {
    let mount = mount(settings, "cert");
    let role = settings.string("auth.role");
    let certificate = needed_path(settings, "auth.cert_file", "the PEM file of this client's certificate", host);
    let key = needed_path(settings, "auth.key_file", "the PEM file of its private key", host);
    Some(Cert { mount, role, pair: KeyPair { certificate: certificate?, key: key? } })
}

fn aws_role(name: &str, settings: &mut Settings, aws: Option<Value>, host: &HostFiles) -> Option<Aws> {
    let mount = mount(settings, "aws");
    let role = role(settings);
    let server_id = settings.string("auth.server_id");
    let table = match aws {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(_) => return settings.wrong("auth.aws", "must be a table: [provider.….auth.aws]"),
    };
    match Caller::build(&format!("{name}.auth.aws"), table, host) {
        Ok(caller) => Some(Aws { mount, role: role?, server_id, caller }),
        Err(faults) => settings.faulty(faults),
    }
}

fn azure(settings: &mut Settings, host: &HostFiles) -> Option<Azure> {
    let mount = mount(settings, "azure");
    let role = role(settings);
    let resource = settings.string("auth.resource").unwrap_or_else(|| AZURE_RESOURCE.into());
    let mut identities = Vec::new();
    for (key, parameter) in AZURE_IDENTITIES {
        identities.extend(settings.string(key).map(|value| (key, parameter, value)));
    }
    if let [(first, ..), (second, ..), ..] = identities[..] {
        settings.wrong::<()>(first, &format!("and `{second}` both name an identity: keep one"));
    }
    let identity = identities.into_iter().next().map(|(_, parameter, value)| (parameter, value));
    let source = managed_identity(settings, host);
    Some(Azure { mount, role: role?, resource, identity, source: source? })
}

fn managed_identity(settings: &mut Settings, host: &HostFiles) -> Option<ManagedIdentity> {
    let machine = endpoint(settings, "auth.metadata_endpoint", Some(AZURE_METADATA));
    let endpoint = endpoint(settings, "auth.identity_endpoint", None);
    let header_file = settings.host_path("auth.identity_header_file", host);
    match (endpoint, header_file) {
        (None, None) => Some(ManagedIdentity::Machine(Metadata::new(machine?, "the instance metadata service"))),
        (Some(endpoint), Some(header_file)) => {
            let endpoint = Metadata::new(endpoint, "the identity endpoint");
            Some(ManagedIdentity::Endpoint { endpoint, header_file })
        }
        (Some(_), None) => settings.wrong(
            "auth.identity_header_file",
            "is needed with `auth.identity_endpoint`: the file that holds the value of IDENTITY_HEADER",
        ),
        (None, Some(_)) => settings.wrong("auth.identity_endpoint", "is needed with `auth.identity_header_file`"),
    }
}

fn gcp(settings: &mut Settings) -> Option<Gcp> {
    let mount = mount(settings, "gcp");
    let role = role(settings);
    let account = settings.string("auth.service_account").unwrap_or_else(|| "default".into());
    let metadata = endpoint(settings, "auth.metadata_endpoint", Some(GOOGLE_METADATA));
    Some(Gcp { mount, role: role?, account, metadata: Metadata::new(metadata?, "the metadata server") })
}

fn mount(settings: &mut Settings, default: &str) -> String {
    let mount = settings.string("auth.mount").unwrap_or_else(|| default.into());
    mount.trim_matches('/').trim_start_matches("auth/").to_owned()
}

fn role(settings: &mut Settings) -> Option<String> {
    match settings.string("auth.role") {
        Some(role) => Some(role),
        None => settings.wrong("auth.role", "is needed: the role to log in to"),
    }
}

fn needed_path(settings: &mut Settings, key: &'static str, what: &str, host: &HostFiles) -> Option<PathBuf> {
    let Some(named) = settings.path(key) else { return settings.wrong(key, &format!("is needed: {what}")) };
    match host.locate(&named) {
        Ok(_) => Some(named),
        Err(fault) => settings.wrong(key, &format!("cannot be used: {fault}")),
    }
}

fn endpoint(settings: &mut Settings, key: &'static str, default: Option<&str>) -> Option<Url> {
    let text = settings.string(key).or(default.map(str::to_owned))?;
    let url = Url::parse(&text).ok().filter(|url| {
        let plain = url.username().is_empty() && url.password().is_none();
        url.scheme() == "http" && url.host_str().is_some() && plain && url.query().is_none() && url.fragment().is_none()
    });
    url.or_else(|| settings.wrong(key, "must be a plain `http://` URL: a metadata service speaks no TLS"))
}
