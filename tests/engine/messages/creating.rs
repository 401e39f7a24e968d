//! What cannot work is refused when the volume is created.

use super::assert_all;
use crate::vault::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_work_are_refused_with_every_fault_at_once() {
    let world = World::start().await;
    let refused = |options: &[&str]| world.no_volume("v", options);
    let canary = world.canary();
    assert_all([
        (refused(&["form=vault://secret/app"]), "dso: volume `v`: unknown option `form`: did you mean `from`?"),
        (
            refused(&["from=vault://secret/app", "refesh=5s", "sise=2m"]),
            "dso: volume `v`: unknown option `refesh`: did you mean `refresh`?; unknown option `sise`: did you mean `size`?",
        ),
        (
            refused(&["from=vault://secret/app", "mode=rw", "refresh=fast"]),
            "dso: volume `v`: option `mode`: `rw` is no mode: write it in octal, from `0000` to `0777`; option `refresh`: `fast` is no time: write it as `30s`, `5m` or `1h30m`",
        ),
        (
            refused(&["from=vault://secret/app", "refresh=10ms", "size=1g", "max-stale=30"]),
            "dso: volume `v`: option `refresh`: `10ms` is too often: at least `1s`, or `0` for never; option `max-stale`: `30` is no time: write it as `30s`, `5m` or `1h30m`; option `size`: `1g` is out of range: from `4k` to `64m`",
        ),
        (refused(&[]), "dso: volume `v`: at least one of `from`, `file.<path>` and `template.<path>` is needed"),
        (
            refused(&["from=secret/app", "file.a=vault://", "file.b=vault://secret/../x"]),
            "dso: volume `v`: option `from`: not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]; option `file.a`: `vault://`: it names no secret after `://`; option `file.b`: `vault://secret/../x`: `..`, `.` and empty segments are not allowed in the secret's path",
        ),
        (
            refused(&["file.../a=vault://secret/app#a", "file./b=vault://secret/app#b"]),
            "dso: volume `v`: option `file.../a`: it has a segment `..`; option `file./b`: it must be relative to the volume, without a `/` in front",
        ),
        (
            refused(&["file.a=vault://secret/app#a", "template.a=x", "file.a/b=vault://secret/app#b"]),
            "dso: volume `v`: two sources for `a`: `file.a` and `template.a`; `a` cannot be a file and the directory of `a/b`",
        ),
        (
            refused(&["file.a=vault://secret/app#a", "mode.b=0400"]),
            "dso: volume `v`: option `mode.b` is for a file that the volume does not have: did you mean `a`?",
        ),
        (
            refused(&["file.a=vualt://secret/app#a"]),
            "dso: volume `v`: option `file.a`: `vualt://secret/app`: unknown provider `vualt`: did you mean `vault`?",
        ),
        (
            refused(&["file.a=aws://prod/app#a"]),
            "dso: volume `v`: option `file.a`: `aws://prod/app`: provider `aws` is not set up: write [provider.aws] in /etc/dso/dso.toml, or disable the plugin and set AWS_REGION with `docker plugin set`",
        ),
        (
            refused(&["file.a=vault://secret/app?versoin=3", "file.b=local://app?x=1"]),
            "dso: volume `v`: option `file.b`: `local://app`: provider `local` knows no parameter, and `x` was given; option `file.a`: `vault://secret/app`: unknown parameter `versoin`: did you mean `version`?",
        ),
        (
            refused(&["file.a=vault://secret"]),
            "dso: volume `v`: option `file.a`: `vault://secret`: the path names a secrets engine only: write <engine>/<secret>, as `vault kv get` takes it",
        ),
        (
            refused(&["from=vault://secret/app", &format!("vault_token={canary}")]),
            "dso: volume `v`: option `vault_token` would carry a credential: dso takes none in options, since `docker inspect` shows them; it logs in with the identity that /etc/dso/dso.toml names",
        ),
        (
            refused(&["from=vault://secret/app", "on-rotate=restrat"]),
            "dso: volume `v`: option `on-rotate`: unknown action `restrat`: did you mean `restart`?",
        ),
        (
            refused(&["template.env={{ secret('vault://secret/app#a') "]),
            "dso: volume `v`: option `template.env`: the template's syntax is wrong in line 1: unexpected end of input, expected end of variable block",
        ),
        (
            refused(&["template.env=A={{ app.password }}"]),
            r#"dso: volume `v`: option `template.env`: unknown name `app`: values come from `secret("<reference>")` alone"#,
        ),
        (
            refused(&["template.env={% set x = 'app' %}{{ secret('vault://secret/' ~ x) }}"]),
            "dso: volume `v`: option `template.env`: `secret` takes one reference, written as a literal string",
        ),
        (
            refused(&["template.env={{ secret('secret/app') }}", "delimiters=[["]),
            "dso: volume `v`: option `delimiters`: must be two words, such as `[[ ]]`; option `template.env`: not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]",
        ),
        (
            // A value where its reference belongs.
            refused(&[&format!("file.a={canary}"), &format!("template.b={{{{ secret('{canary}') }}}}")]),
            "dso: volume `v`: option `file.a`: not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]; option `template.b`: not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]",
        ),
    ]);
    world.nothing_leaked();
}
