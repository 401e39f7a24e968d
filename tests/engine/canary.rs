//! That a value is nowhere but in RAM: random secrets are searched wherever the engine and dso write, and a few of the
//! same kind that were put there on purpose are found.

use crate::support::{
    BUSYBOX, SOON,
    aws::served::AwsServer,
    azure::served::AzureServer,
    engine::Engine,
    local::LocalSecrets,
    own_engine::OwnEngine,
    plugin::Plugin,
    scan::{CHUNK, Findings, Needles, Search},
    vault::VaultServer,
    wait_for,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const VOLUME_FILES: [&str; 12] =
    ["binary", "hex", "base64", "env", "role", "aws", "ec2", "web", "azure", "app", "work", "cert"];

/// Secrets of every provider: a binary value and a field of a JSON object of `local`'s, a field of Vault's, and the same two of AWS's
/// and of Azure's.
struct Secrets([[u8; 32]; 7]);

/// The servers of every provider that has one. A further one adds its secret to [`Secrets`], its settings, and what it knows
/// of identities.
struct Servers {
    vault: VaultServer,
    aws: AwsServer,
    azure: AzureServer,
    /// What of an identity a person puts into a file of `/etc/dso`: the file and its content.
    files: Vec<(&'static str, String)>,
}

// === impl Servers ===

impl Servers {
    fn start(config: &Path) -> Self {
        let (vault, aws, azure) = (VaultServer::start(), AwsServer::start(config), AzureServer::start());
        let role = vault.approle();
        let files = [
            ("vault-token", vault.token()),
            ("secret-id", role.secret_id),
            ("token", aws.container_token.clone()),
            ("web-token", aws.web_token.clone()),
        ];
        let files = [&files[..], &[("role-id", role.role_id)], &azure.secret_files()].concat();
        Self { files, vault, aws, azure }
    }

    fn settings(&self) -> String {
        let role = format!(
            "[provider.role]\ntype = 'vault'\naddress = '{}'\nauth.method = 'approle'\n\
             auth.role_id_file = '/etc/dso/role-id'\nauth.secret_id_file = '/etc/dso/secret-id'\n",
            self.vault.proxy.address()
        );
        [self.vault.settings(), role, self.aws.settings(), self.azure.settings()].concat()
    }

    fn ports(&self) -> Vec<u16> {
        [&[self.vault.port()][..], &self.aws.ports(), &self.azure.ports()].concat()
    }

    /// What identities consist of, but for what is in a file: session tokens, secret keys, signatures, assertions.
    fn identities(&self) -> Vec<String> {
        let in_file = |text: &String| self.files.iter().any(|(_, content)| content == text);
        let mut texts = [self.vault.proxy.tokens(), self.aws.identities(), self.azure.identities()].concat();
        texts.retain(|text| !in_file(text));
        texts.sort();
        texts.dedup();
        texts
    }
}

// === impl Secrets ===

impl Secrets {
    fn new() -> Self {
        Self([(); 7].map(|()| random()))
    }

    fn put(&self, local: &LocalSecrets, servers: &Servers) {
        local.set("binary", self.0[0]);
        local.set("app#hex", hex(&self.0[1]));
        servers.vault.put("app", json!({"base64": BASE64.encode(self.0[2])}));
        servers.aws.put("binary", json!({"SecretBinary": BASE64.encode(self.0[3])}));
        servers.aws.put("app", json!({"SecretString": json!({"hex": hex(&self.0[4])}).to_string()}));
        let certificate = json!({"value": BASE64.encode(self.0[5]), "contentType": "application/x-pkcs12"});
        servers.azure.put("binary", certificate);
        servers.azure.put("app", json!({"value": json!({"hex": hex(&self.0[6])}).to_string()}));
    }

    /// What the volume's files hold, in the order of [`VOLUME_FILES`].
    fn shown(&self) -> [Vec<u8>; 12] {
        let [binary, field, vault, aws, aws_field, azure, azure_field] = &self.0;
        let (env, vault, aws_field) = (format!("HEX={}", hex(field)), BASE64.encode(vault), hex(aws_field));
        let vault: Vec<u8> = vault.into();
        let aws_field: Vec<u8> = aws_field.into();
        let azure_field: Vec<u8> = hex(azure_field).into();
        [
            binary.to_vec(),
            hex(field).into(),
            vault.clone(),
            env.into(),
            vault,
            aws.to_vec(),
            aws_field.clone(),
            aws_field,
            azure.to_vec(),
            azure_field.clone(),
            azure_field.clone(),
            azure_field,
        ]
    }
}

#[test]
fn a_value_is_nowhere_but_in_memory() {
    let _pattern = CorePattern::plain();
    let since = SystemTime::now() - Duration::from_secs(5);
    // Whoever this test starts may dump a core as large as it likes, unless it forbids that itself.
    setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).unwrap();
    let own = OwnEngine::start();
    let preparation = Plugin::on(&own).set("DSO_LOG=trace");
    let servers = Servers::start(&preparation.config_dir());
    servers.ports().into_iter().for_each(|port| own.forward(port));
    own.load_images();
    let (first, second, planted) = (Secrets::new(), Secrets::new(), random());
    let preparation = preparation.config("dso.toml", servers.settings());
    let public = servers.azure.public_files();
    let preparation = public.iter().fold(preparation, |plugin, (file, content)| plugin.config(file, content));
    let prepared = servers.files.iter().fold(preparation, |plugin, (file, content)| plugin.config(file, content));
    let plugin = prepared.start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    let secrets = [("first", &first), ("second", &second)].map(|(name, secrets)| secrets.0.map(|bytes| (name, bytes)));
    let secrets = [secrets.concat(), vec![("planted", planted)]].concat();
    let search = |ram: &[&str]| {
        // Those of the identities that there are by now.
        let identities = servers.identities();
        let texts = identities.iter().map(|text| ("identity", text.as_str()));
        // Of several lines, the longest.
        let line = |content: &'_ str| content.lines().max_by_key(|line| line.len()).unwrap_or_default().to_owned();
        let lines: Vec<_> = servers.files.iter().map(|(file, content)| (*file, line(content))).collect();
        let in_files = lines.iter().map(|(file, line)| (*file, line.as_str()));
        let needles = Needles::new(&secrets, &texts.chain(in_files).collect::<Vec<_>>());
        let found = search(&needles, &own, &plugin, since);
        let hits = |name: &str| found.hits.get(name).cloned().unwrap_or_default();
        assert_eq!((hits("first"), hits("second")), ([].into(), [].into()), "{found:#?}");
        assert_eq!(hits("identity"), [].into(), "{found:#?}");
        for (file, _) in &servers.files {
            // Where a person put it, and there alone.
            assert_eq!(hits(file), [plugin.config_dir().join(file)].into(), "{found:#?}");
        }
        let volumes: BTreeSet<PathBuf> = ram.iter().map(|volume| plugin.shown(volume)).collect();
        assert_eq!(found.ram, volumes, "the file systems in RAM that were left out");
        assert_eq!(found_cores(&plugin), Vec::<PathBuf>::new(), "cores of the plugin");
        hits("planted")
    };

    servers.aws.create("binary", json!({}));
    servers.aws.create("app", json!({}));
    first.put(&store, &servers);
    let volume = plugin.named("volume");
    let options = [
        "file.binary=local://binary",
        "from=local://app",
        "file.base64=vault://secret/app#base64",
        "template.env=HEX={{ secret('local://app#hex') }}",
        "file.role=role://secret/app#base64",
        "file.aws=aws://binary",
        "file.ec2=ec2://app#hex",
        "file.web=web://app#hex",
        "file.azure=azure://corp/binary",
        "file.app=app://corp/app#hex",
        "file.work=work://corp/app#hex",
        "file.cert=cert://corp/app#hex",
        "refresh=1s",
    ];
    let mount = plugin.mount(&volume, "/s", &options);
    let container = own.docker(&["run", "--detach", "--network=none", "--mount", &mount, BUSYBOX, "sleep", "100000"]);
    assert_eq!(read(&own, &container), first.shown());
    // That the search would find them: in the tmpfs, were it not left out, and in what the container's reader was told.
    let needles = Needles::new(&secrets, &[]);
    let mut inside = Search::new(&needles, Path::new("/none"));
    inside.all(&plugin.shown(&volume));
    assert_eq!(inside.findings.hits["first"].len(), VOLUME_FILES.len(), "{:#?}", inside.findings);
    assert_eq!(search(&[&volume]), [].into(), "nothing is planted yet");

    second.put(&store, &servers);
    wait_for("the rotation", SOON, || read(&own, &container) == second.shown());
    own.docker(&["commit", &container, "committed"]);
    for signal in [Signal::ABORT, Signal::SEGV] {
        plugin.crash(signal);
        wait_for("the mount to be taken over", SOON, || plugin.status(&volume)["state"] == "current");
    }
    assert_eq!(read(&own, &container), second.shown());
    let plants = Plants::put(&planted, &own);
    assert_eq!(search(&[&volume]), plants.places, "what was planted, and no more");

    own.docker(&["rm", "--force", &container]);
    assert_eq!(plugin.status(&volume)["state"], "idle");
    assert_eq!(search(&[]), plants.places);
    own.docker(&["volume", "rm", &volume]);
    own.docker(&["plugin", "disable", &plugin.driver()]);
    assert_eq!(search(&[]), plants.places);
}

/// What the container reads.
fn read(engine: &Engine, container: &str) -> [Vec<u8>; 12] {
    VOLUME_FILES.map(|file| {
        let mut exec = engine.command();
        exec.args(["exec", container, "cat", &format!("/s/{file}")]).output().unwrap().stdout
    })
}

/// Every place where a value could come to be, but for the volume itself. What is no file has a path that says what it is.
fn search(needles: &Needles, own: &OwnEngine, plugin: &Plugin, since: SystemTime) -> Findings {
    let propagated = plugin.propagated();
    let mut search = Search::new(needles, &propagated);
    // The data root with images, layers, state and settings, and beside it the engine's log.
    search.all(own.data_root.parent().unwrap());
    search.all(plugin.folder());
    for shared in ["/tmp", "/run", "/var/log"] {
        search.since(Path::new(shared), since);
    }
    let mut found = search.findings;
    for (what, text) in told(own) {
        for name in needles.find(text.as_bytes()) {
            found.hits.entry(name).or_default().insert(what.into());
        }
    }
    let read = format!("{} files, {} MiB, {:?}", found.files, found.bytes >> 20, found.unread);
    eprintln!("searched {read}");
    let ours = own.data_root.parent().unwrap().to_str().unwrap();
    assert!(!found.unread.iter().any(|unread| unread.starts_with(ours)), "{read}");
    assert!(found.files > 100, "{read}");
    found
}

/// What Docker tells of everything there is.
fn told(engine: &Engine) -> Vec<(&'static str, String)> {
    let inspect = |list: &[&str], kind: &str| {
        let ids = engine.docker(list);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() { String::new() } else { engine.docker(&[&[kind, "inspect"][..], &ids].concat()) }
    };
    vec![
        ("inspect containers", inspect(&["ps", "--all", "--quiet"], "container")),
        ("inspect volumes", inspect(&["volume", "ls", "--quiet"], "volume")),
        ("inspect images", inspect(&["image", "ls", "--all", "--quiet"], "image")),
        ("inspect plugins", inspect(&["plugin", "ls", "--quiet"], "plugin")),
        ("info", engine.docker(&["info"])),
        ("events", engine.docker(&["events", "--since=1h", "--until=0s"])),
        ("log", engine.log()),
    ]
}

/// A secret that was put where one might get to.
struct Plants {
    places: BTreeSet<PathBuf>,
    _files: Vec<tempfile::NamedTempFile>,
}

// === impl Plants ===

impl Plants {
    fn put(secret: &[u8; 32], own: &OwnEngine) -> Self {
        let mut places = BTreeSet::new();
        let mut files = Vec::new();
        for folder in [own.data_root.to_str().unwrap(), "/tmp", "/run", "/var/log"] {
            let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
            // On the boundary of two chunks that are read.
            file.seek(SeekFrom::Start(CHUNK as u64 - 16)).unwrap();
            file.write_all(secret).unwrap();
            places.insert(file.path().to_owned());
            files.push(file);
        }
        // In the engine's log: as a line of its own.
        let log = own.data_root.with_file_name("dockerd.log");
        writeln!(File::options().append(true).open(&log).unwrap(), "planted {}", hex(secret)).unwrap();
        places.extend([log, "log".into()]);
        // In a label of a volume: it is in the engine's data base, and Docker tells of it.
        own.docker(&["volume", "create", "--label", &format!("planted={}", BASE64.encode(secret)), "labelled"]);
        places.extend([own.data_root.join("volumes/metadata.db"), "inspect volumes".into()]);
        places.insert(core_with(secret, own));
        Self { places, _files: files }
    }
}

/// The core of a process in a container that knows `secret` and dies of the signal that the plugin died of.
fn core_with(secret: &[u8; 32], own: &OwnEngine) -> PathBuf {
    let name = "dumps";
    let words = ["create", "--interactive", "--network=none", "--pid=host", "--name", name, BUSYBOX];
    own.docker(&[&words[..], &["sh", "-c", "read known; kill -ABRT $$"]].concat());
    let mut start = own.command();
    start.args(["start", "--attach", "--interactive", name]).stdin(std::process::Stdio::piped());
    let mut child = start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", hex(secret)).unwrap();
    child.wait().unwrap();
    assert_eq!(own.json(&["container", "inspect", name], ".State.ExitCode"), 128 + 6);
    // The driver `vfs` keeps a container's files in a folder.
    let layer = fs::read_dir(own.data_root.join("vfs/dir")).unwrap().flatten();
    let cores = layer.flat_map(|layer| cores_in(&layer.path())).collect::<Vec<_>>();
    assert_eq!(cores.len(), 1, "{cores:?}");
    cores.into_iter().next().unwrap()
}

/// The plugin's working directory is the root of its file system.
fn found_cores(plugin: &Plugin) -> Vec<PathBuf> {
    [plugin.rootfs(), plugin.propagated()].iter().flat_map(|folder| cores_in(folder)).collect()
}

fn cores_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"core"))
        .map(|entry| entry.path())
        .collect()
}

/// The kernel's setting of where cores go, as the engine's machine has it again afterwards.
struct CorePattern(Option<String>);

// === impl CorePattern ===

impl CorePattern {
    const FILE: &str = "/proc/sys/kernel/core_pattern";

    /// Into the working directory, and to no program.
    fn plain() -> Self {
        let before = fs::read_to_string(Self::FILE).unwrap();
        if before.trim_end() == "core" {
            return Self(None);
        }
        fs::write(Self::FILE, "core").unwrap();
        Self(Some(before))
    }
}

impl Drop for CorePattern {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            fs::write(Self::FILE, before).unwrap();
        }
    }
}

#[test]
fn the_search_finds_every_form_of_a_secret_wherever_it_stands() {
    let (secret, other) = (random(), random());
    let needles = Needles::new(&[("secret", secret), ("other", other)], &[]);
    let encoded = |before: &str| BASE64.encode([before.as_bytes(), &secret, b"and so on"].concat());
    let url = |text: &str| text.replace('+', "-").replace('/', "_").replace('=', "");
    let mut forms = vec![secret.to_vec(), hex(&secret).into_bytes(), hex(&secret).to_uppercase().into_bytes()];
    for text in [BASE64.encode(secret), encoded(""), encoded("1"), encoded("22"), encoded("{\"a\":\"")] {
        forms.push(url(&text).into_bytes());
        forms.push(text.into_bytes());
    }
    for form in forms {
        for before in 0..200 {
            let text = [&vec![b'A'; before][..], &form, &[b'A'; 50]].concat();
            // Chunks so small that each form stands on a boundary sooner or later.
            let (found, bytes) = needles.find_in(&text[..], 64).unwrap();
            assert_eq!((found, bytes), (["secret".to_owned()].into(), text.len() as u64), "{form:?} after {before}");
        }
    }
    assert_eq!(needles.find(&secret[1..]), [].into(), "a part is not the whole");
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
