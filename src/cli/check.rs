//! `docker dso check`: what volumes would have in them, before anything is deployed. Nothing is mounted, and no value is told.

use super::{
    Failure,
    compose::{self, Wanted},
    engine::{Engine, Plugin},
    format::aligned,
    print,
    session::Session,
    text::{Colour, Style, counted, plain},
};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  docker dso check -o from=vault://secret/app -o mode=0400\n  docker dso check compose.yaml"
)]
pub struct Arguments {
    /// An option of a volume, as of `docker volume create`
    #[arg(short, long = "opt", value_name = "KEY=VALUE", conflicts_with_all = ["files", "named"])]
    opt: Vec<String>,
    /// A Compose file, as of `docker compose`; several are merged
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to write it: for people, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// A Compose file; without it and without options, the one that `docker compose` finds
    #[arg(value_name = "COMPOSE-FILE")]
    named: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What the plugin answers.
#[derive(Deserialize)]
struct Checked {
    ok: bool,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    faults: Vec<String>,
    size: Option<Size>,
}

#[derive(Deserialize)]
struct File {
    path: String,
    mode: String,
    uid: u32,
    gid: u32,
    bytes: u64,
    #[serde(default)]
    sources: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    reference: String,
    version: Option<String>,
}

#[derive(Deserialize)]
struct Size {
    bytes: u64,
    limit: u64,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    let by_hand = options(&arguments.opt)?;
    let volumes = match by_hand {
        Some(_) => Vec::new(),
        None => {
            let files: Vec<_> = arguments.files.iter().chain(&arguments.named).cloned().collect();
            compose::volumes(&session.call, &files)?
        }
    };
    session.block_on(async {
        let mut engine = session.engine().await?;
        let work = match by_hand {
            Some(options) => {
                let plugin = engine.plugin(session.plugin.as_deref()).await?;
                vec![(
                    Wanted {
                        shown: "volume".into(),
                        name: "docker-dso-check".into(),
                        driver: plugin.name.clone(),
                        options,
                    },
                    plugin,
                )]
            }
            None => of_compose(volumes, session, &mut engine).await?,
        };
        let mut bad = 0;
        for (at, (wanted, plugin)) in work.iter().enumerate() {
            let checked = ask(&engine, plugin, wanted).await?;
            bad += usize::from(!checked.ok);
            if arguments.format == Format::Json {
                print(&json(wanted, &checked).to_string())?;
                continue;
            }
            let space = if at > 0 { "\n" } else { "" };
            print(&format!("{space}{}", text(wanted, &checked, session.style).join("\n")))?;
        }
        match bad {
            0 => Ok(()),
            _ if work.len() == 1 => Err(Failure::Failed("it could not be mounted".into())),
            _ => Err(Failure::Failed(format!("{} of {} could not be mounted", bad, counted(work.len(), "volume")))),
        }
    })
}

fn options(given: &[String]) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let mut options = BTreeMap::new();
    for option in given {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            Failure::Usage(format!("`{}` is no option: write KEY=VALUE, as in from=vault://secret/app", plain(option)))
        })?;
        if options.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::Usage(format!("the option `{}` is given twice", plain(key))));
        }
    }
    Ok((!options.is_empty()).then_some(options))
}

/// Of the volumes of a Compose file those whose driver is dso, with the plugin that would mount it.
async fn of_compose(
    volumes: Vec<Wanted>,
    session: &Session,
    engine: &mut Engine,
) -> Result<Vec<(Wanted, Plugin)>, Failure> {
    let plugins = engine.plugins(session.plugin.as_deref()).await?;
    let (mut work, mut others) = (Vec::new(), Vec::new());
    for wanted in volumes {
        match plugins.iter().find(|plugin| plugin.is_called(&wanted.driver)) {
            Some(plugin) if !plugin.enabled => return Err(plugin.disabled()),
            Some(plugin) => work.push((wanted, plugin.clone())),
            None => others.push(format!("`{}` is of driver `{}`", wanted.shown, wanted.driver)),
        }
    }
    if work.is_empty() {
        let there = if others.is_empty() {
            "no service uses a volume that names a driver".to_owned()
        } else {
            others.join(", ")
        };
        return Err(Failure::Failed(format!(
            "the Compose file has no volume of driver `{}`: {there}",
            plugins[0].short()
        )));
    }
    Ok(work)
}

async fn ask(engine: &Engine, plugin: &Plugin, wanted: &Wanted) -> Result<Checked, Failure> {
    let mut operator = engine.operate(plugin).await?;
    let body = json!({"name": wanted.name, "options": wanted.options});
    let answer = operator.client.post("/dso/v1/check", &body).await.map_err(|error| operator.failure(error))?;
    Checked::deserialize(answer).map_err(|_| {
        Failure::Failed(format!(
            "the plugin `{}` answers in a form that is not known: upgrade `docker dso`",
            plugin.name
        ))
    })
}

fn text(wanted: &Wanted, checked: &Checked, style: Style) -> Vec<String> {
    let head = match checked.ok {
        true => style.paint(Colour::Green, "would be mounted"),
        false => style.paint(Colour::Red, &format!("cannot be mounted: {}", counted(checked.faults.len(), "fault"))),
    };
    let size = checked.size.as_ref().filter(|_| checked.ok).map(|size| {
        let files = counted(checked.files.len(), "file");
        format!(", {files}, {} of {} bytes", size.bytes, size.limit)
    });
    let size = size.unwrap_or_default();
    let mut lines = vec![format!("{}: {head}{size}", style.paint(Colour::Bold, &plain(&wanted.shown)))];
    lines.extend(checked.faults.iter().map(|fault| format!("  {}", plain(fault))));
    if !checked.files.is_empty() {
        let cell = |text: &str| (plain(text), Colour::None);
        let mut rows = vec![["FILE", "MODE", "OWNER", "BYTES", "VERSION", "SOURCE"].map(cell).to_vec()];
        for file in &checked.files {
            let versions: Vec<_> = file.sources.iter().map(|source| source.version.as_deref().unwrap_or("-")).collect();
            let sources: Vec<_> = file.sources.iter().map(|source| source.reference.as_str()).collect();
            let owner = format!("{}:{}", file.uid, file.gid);
            let (bytes, versions, sources) = (file.bytes.to_string(), versions.join(", "), sources.join(", "));
            rows.push([&file.path, &file.mode, &owner, &bytes, &versions, &sources].map(|text| cell(text)).to_vec());
        }
        lines.extend(aligned(&rows, style).into_iter().map(|row| format!("  {row}")));
    }
    lines
}

fn json(wanted: &Wanted, checked: &Checked) -> Value {
    let source = |source: &Source| json!({"Reference": source.reference, "Version": source.version});
    let file = |file: &File| {
        let File { path, mode, uid, gid, bytes, sources } = file;
        let sources: Vec<_> = sources.iter().map(source).collect();
        json!({"Path": path, "Mode": mode, "UID": uid, "GID": gid, "Bytes": bytes, "Sources": sources})
    };
    json!({
        "Volume": wanted.shown,
        "Driver": wanted.driver,
        "OK": checked.ok,
        "Files": checked.files.iter().map(file).collect::<Vec<_>>(),
        "Faults": checked.faults,
        "Size": checked.size.as_ref().map(|size| json!({"Bytes": size.bytes, "Limit": size.limit})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { terminal: false, colour: false };

    fn wanted() -> Wanted {
        Wanted { shown: "tls".into(), name: "p_tls".into(), driver: "dso".into(), options: BTreeMap::new() }
    }

    #[test]
    fn files_and_faults_are_shown_without_what_is_in_them() {
        let checked = Checked::deserialize(json!({
            "ok": true, "faults": [], "size": {"bytes": 40, "limit": 1048576},
            "files": [
                {"path": "env", "mode": "0400", "uid": 1000, "gid": 0, "bytes": 8,
                 "sources": [{"reference": "local://a#u", "version": "2"}, {"reference": "local://b", "version": null}]},
                {"path": "password", "mode": "0444", "uid": 0, "gid": 0, "bytes": 32,
                 "sources": [{"reference": "vault://secret/app#password", "version": "3"}]},
            ],
        }));
        let lines = text(&wanted(), &checked.unwrap(), PLAIN).join("\n");
        assert_eq!(
            lines,
            "tls: would be mounted, 2 files, 40 of 1048576 bytes
  FILE       MODE   OWNER    BYTES   VERSION   SOURCE
  env        0400   1000:0   8       2, -      local://a#u, local://b
  password   0444   0:0      32      3         vault://secret/app#password"
        );
        let checked = Checked::deserialize(json!({"ok": false, "files": [], "faults": ["one\nx", "two"]})).unwrap();
        assert_eq!(text(&wanted(), &checked, PLAIN), ["tls: cannot be mounted: 2 faults", "  one x", "  two"]);
        assert_eq!(json(&wanted(), &checked)["Faults"], json!(["one\nx", "two"]));
    }

    #[test]
    fn options_are_pairs_each_given_once() {
        let given = |words: &[&str]| options(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&[]).unwrap(), None);
        assert_eq!(given(&["from=a=b"]).unwrap().unwrap()["from"], "a=b");
        assert!(matches!(given(&["from"]), Err(Failure::Usage(_))));
        assert!(matches!(given(&["a=1", "a=2"]), Err(Failure::Usage(_))));
    }
}
