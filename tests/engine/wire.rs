//! What comes at the plugin's socket that is not Docker, or not well: the others go on.

use crate::support::{PATIENCE, SOON, engine::Engine, local::LocalSecrets, plugin::Plugin, wait_for};
use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

const IDLE: usize = 1_000;

fn plugin() -> Plugin {
    Plugin::on(&Engine::system()).start()
}

fn connect(plugin: &Plugin) -> UnixStream {
    let stream = UnixStream::connect(plugin.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends bytes as they are and breaks off there; returns what comes until the other end closes.
fn raw(plugin: &Plugin, bytes: &[u8]) -> String {
    exchange(plugin, bytes, true)
}

/// Whoever half-closes hangs up, for the server: a whole request waits for its answer instead.
fn exchange(plugin: &Plugin, bytes: &[u8], hang_up: bool) -> String {
    let mut stream = connect(plugin);
    // The other end may refuse before it has read all.
    let _ = stream.write_all(bytes);
    if hang_up {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A volume's whole life; it must work whatever else goes on.
fn assert_serves(plugin: &Plugin, volume: &str) {
    LocalSecrets::in_dir(&plugin.config_dir()).set("app#key", "value");
    let fine = json!({ "Err": "" });
    let create = json!({ "Name": volume, "Opts": { "from": "local://app" } });
    assert_eq!(plugin.call("/VolumeDriver.Create", &create).1, fine);
    let (_, got) = plugin.call("/VolumeDriver.Get", &json!({ "Name": volume }));
    assert_eq!((got["Err"].as_str(), got["Volume"]["Name"].as_str()), (Some(""), Some(volume)));
    let (_, mounted) = plugin.call("/VolumeDriver.Mount", &json!({ "Name": volume, "ID": "m" }));
    assert_eq!(mounted["Err"], "", "{mounted}");
    let key = plugin.propagated().join("volumes").join(volume).join("key");
    assert_eq!(fs::read_to_string(key).unwrap(), "value");
    assert_eq!(plugin.call("/VolumeDriver.Unmount", &json!({ "Name": volume, "ID": "m" })).1, fine);
    assert_eq!(plugin.call("/VolumeDriver.Remove", &json!({ "Name": volume })).1, fine);
    assert_eq!(plugin.call("/VolumeDriver.List", &json!({})).1, json!({ "Volumes": [], "Err": "" }));
}

#[test]
fn a_request_that_is_no_request_is_told_so_and_harms_nobody() {
    let plugin = plugin();
    let error = |path: &str, body: &str| {
        let (status, answer) = plugin.try_call(path, body).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        (status, answer["Err"].as_str().unwrap().to_owned())
    };
    for (path, body, status, said) in [
        (
            "/VolumeDriver.Mount",
            "",
            200,
            "dso: the request is empty, as the engine's repetition of a broken-off one is: try again",
        ),
        ("/VolumeDriver.Create", "{\"Name\":", 200, "dso: the request is not what Docker sends (line 1, column 8)"),
        ("/VolumeDriver.Create", "{\"Name\":7}", 200, "dso: the request is not what Docker sends (line 1, column 9)"),
        ("/VolumeDriver.Create", "[]", 200, "dso: the request is not what Docker sends (line 1, column 2)"),
        ("/VolumeDriver.Mount", "{\"Name\":\"v\"}", 200, "dso: volume `v`: the request has no mount ID"),
        ("/VolumeDriver.Get", "{\"Name\":\"v\"}", 200, "dso: there is no volume `v`"),
        ("/VolumeDriver.Nothing", "{}", 404, "dso has no call `/VolumeDriver.Nothing`"),
        ("/../etc/passwd", "{}", 404, "dso has no call `/../etc/passwd`"),
        (
            "/VolumeDriver.Create",
            "{\"Name\":\"v\",\"Opts\":null}",
            200,
            "dso: volume `v`: at least one of `from`, `file.<path>` and `template.<path>` is needed",
        ),
    ] {
        assert_eq!(error(path, body), (status, said.to_owned()), "{path} {body}");
    }
    let name = "dso: volume `NAME`: a volume's name has letters, digits, `_`, `.` and `-` only, and starts with a letter or digit";
    for bad in ["../x", "a/../../b", "..", "a\\u0000b"] {
        let (_, said) =
            error("/VolumeDriver.Create", &format!("{{\"Name\":\"{bad}\",\"Opts\":{{\"from\":\"local://x\"}}}}"));
        let shown = bad.replace("\\u0000", "\0");
        assert_eq!(said, name.replace("NAME", &shown));
    }
    assert_serves(&plugin, "after");
}

#[test]
fn garbage_broken_off_and_endless_requests_end_alone() {
    let plugin = plugin();
    let pid = plugin.pid();
    let garbage: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // The refusal may be lost: the other end closes with most of the garbage unread.
    let refused = raw(&plugin, &garbage);
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 400"), "{refused}");
    let head = |length: usize| {
        format!(
            "POST /VolumeDriver.List HTTP/1.1\r\nHost: dso\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    // `List` looks at no body; `Get` does.
    let get = head(garbage.len()).replace("List", "Get");
    let answer = exchange(&plugin, &[get.as_bytes(), &garbage].concat(), false);
    assert!(answer.contains("dso: the request is not what Docker sends"), "{answer}");
    let too_large = vec![b' '; (4 << 20) + 1];
    let answer = exchange(&plugin, &[head(too_large.len()).as_bytes(), &too_large].concat(), false);
    // As above, what is unread may cost the refusal.
    assert!(answer.is_empty() || answer.contains("more than 4 MiB"), "{answer}");
    let broken = raw(&plugin, &[head(100).as_bytes(), b"{\"Name\""].concat());
    assert!(broken.is_empty() || broken.contains("broken off"), "{broken}");
    assert!(raw(&plugin, b"\r\n\r\nHELLO\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_serves(&plugin, "after");
    assert_eq!(plugin.pid(), pid, "it is the same process");
}

#[test]
fn a_thousand_idle_connections_and_clients_that_hang_leave_the_others_served() {
    let plugin = plugin();
    let open = || fs::read_dir(format!("/proc/{}/fd", plugin.pid())).unwrap().count();
    let limits = fs::read_to_string(format!("/proc/{}/limits", plugin.pid())).unwrap();
    let limits = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let (soft, hard) = (limits.split_whitespace().nth(3), limits.split_whitespace().nth(4));
    assert_eq!(soft, hard, "the plugin takes what it may have");
    let mut idle: Vec<_> = (0..IDLE).map(|_| connect(&plugin)).collect();
    // Connections are accepted in their order: who is answered came after all of them.
    assert_eq!(plugin.call("/VolumeDriver.List", &json!({})).0, 200);
    assert!(open() >= IDLE, "they are all open");
    // Some stop in the middle of their headers, some in the middle of their body.
    for (n, stream) in idle.iter_mut().enumerate().take(100) {
        let part = if n % 2 == 0 {
            "POST /VolumeDriver.Mount HT"
        } else {
            "POST /VolumeDriver.Mount HTTP/1.1\r\nHost: dso\r\nContent-Length: 50\r\n\r\n{\"Na"
        };
        stream.write_all(part.as_bytes()).unwrap();
    }
    assert_serves(&plugin, "beside");
    drop(idle);
    wait_for("the plugin to have closed them", PATIENCE, || open() < IDLE / 10);
}
