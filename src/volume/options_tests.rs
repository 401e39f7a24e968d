use super::*;

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn fault(pairs: &[(&str, &str)]) -> String {
    VolumeSpec::parse(&options(pairs)).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_dockers_own_secrets() {
    let spec = VolumeSpec::parse(&options(&[("from", "vault://secret/app")])).unwrap();
    assert_eq!(spec.attributes_of("any"), Attributes { mode: 0o444, uid: 0, gid: 0 });
    assert_eq!((spec.size, spec.max_stale, spec.refresh), (1 << 20, Duration::from_secs(3600), None));
}

#[test]
fn a_file_may_differ_from_the_rest_in_mode_and_owner() {
    let spec = VolumeSpec::parse(&options(&[
        ("file.tls/key.pem", "vault://s/tls#key"),
        ("file.user", "vault://s/app#user"),
        ("mode", "0440"),
        ("mode.tls/key.pem", "0400"),
        ("uid.tls/key.pem", "1000"),
        ("gid", "5"),
    ]))
    .unwrap();
    assert_eq!(spec.attributes_of("tls/key.pem"), Attributes { mode: 0o400, uid: 1000, gid: 5 });
    assert_eq!(spec.attributes_of("user"), Attributes { mode: 0o440, uid: 0, gid: 5 });
}

#[test]
fn distinct_secrets_are_counted_once_whatever_fields_are_used() {
    let spec = VolumeSpec::parse(&options(&[
        ("file.a", "vault://s/app#a"),
        ("file.b", "vault://s/app#b"),
        ("template.c", "{{ secret('vault://s/app#c') }}{{ secret('local://x') }}"),
    ]))
    .unwrap();
    assert_eq!(spec.secrets().iter().map(ToString::to_string).collect::<Vec<_>>(), ["local://x", "vault://s/app"]);
}

#[test]
fn every_fault_is_in_the_one_message() {
    assert_eq!(
        fault(&[("form", "vault://a"), ("file.x", "nope"), ("mode", "9"), ("refresh", "10ms"), ("size", "65m")]),
        "unknown option `form`: did you mean `from`?; \
         option `file.x`: not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]; \
         option `mode`: `9` is no mode: write it in octal, from `0000` to `0777`; \
         option `refresh`: `10ms` is too often: at least `1s`, or `0` for never; \
         option `size`: `65m` is out of range: from `4k` to `64m`"
    );
}

#[test]
fn each_refused_combination_says_which() {
    for (pairs, message) in [
        (&[][..], "at least one of `from`, `file.<path>` and `template.<path>` is needed"),
        (&[("file.a", "v://x"), ("template.a", "y")], "two sources for `a`: `file.a` and `template.a`"),
        (&[("file.a", "v://x"), ("file.a/b", "v://x")], "`a` cannot be a file and the directory of `a/b`"),
        (&[("file.../x", "v://x")], "option `file.../x`: it has a segment `..`"),
        (&[("file./x", "v://x")], "option `file./x`: it must be relative to the volume, without a `/` in front"),
        (
            &[("file.a", "v://x"), ("mode.b", "0400")],
            "option `mode.b` is for a file that the volume does not have: did you mean `a`?",
        ),
        (&[("fiel.a", "v://x"), ("from", "v://x")], "unknown option `fiel`: did you mean `file`?"),
        (&[("from", "v://x"), ("delimiters", "[[")], "option `delimiters`: must be two words, such as `[[ ]]`"),
        (
            &[("from", "v://x"), ("on-rotate", "restrat")],
            "option `on-rotate`: unknown action `restrat`: did you mean `restart`?",
        ),
    ] {
        assert_eq!(fault(pairs), message);
    }
}

#[test]
fn a_credential_is_refused_without_being_repeated() {
    for key in ["token", "VAULT_TOKEN", "secret_id", "aws-secret-key", "password"] {
        let message = fault(&[("from", "v://x"), (key, "hunter2")]);
        assert!(message.contains("would carry a credential"), "{message}");
        assert!(!message.contains("hunter2"));
    }
}
