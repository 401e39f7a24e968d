//! From a volume's spec and the values of its secrets to the set of its files. Pure.

use super::fill;
use crate::{
    faults::{self, Faults},
    paths::check_name,
    projection::{File, FileSet},
    secret::{Secret, SecretId, SecretRef, SecretValue},
    volume::{Source, VolumeSpec},
};
use std::{collections::HashMap, sync::Arc};

pub type Secrets = HashMap<Arc<SecretId>, Arc<Secret>>;

/// Makes the files; every fault is in the one error.
pub fn render(spec: &VolumeSpec, secrets: &Secrets) -> Result<FileSet, Faults> {
    let (mut set, mut faults) = (FileSet::default(), Faults::default());
    let mut add = |path: &str, contents: SecretValue, faults: &mut Faults, what: &str| {
        let at = spec.attributes_of(path);
        let file = File { contents, mode: at.mode, uid: at.uid, gid: at.gid };
        faults.note(set.insert(path, file), what);
    };
    if let Some(from) = &spec.from {
        for (name, value) in
            faults.note(fields_of(from, secrets), format_args!("option `from`: `{from}`")).unwrap_or_default()
        {
            if let Err(fault) = check_name(&name) {
                faults.push(format!(
                    "option `from`: `{from}`: the field `{name}` cannot be a file name: {fault}; name each field by `file.<path>` in place of `from`"
                ));
            } else if spec.files.contains_key(&name) {
                faults.push(format!(
                    "two sources for `{name}`: a field of option `from`, `{from}`, and option `{}.{name}`",
                    spec.files[&name].kind()
                ));
            } else {
                add(&name, value, &mut faults, "option `from`");
            }
        }
    }
    for (path, source) in &spec.files {
        let contents = contents_of(source, secrets);
        let option = format!("option `{}.{path}`", source.kind());
        if let Some(contents) = faults.note(contents, &option) {
            add(path, contents, &mut faults, &option);
        }
    }
    if faults.is_empty() {
        for path in spec.paths_with_attributes().filter(|path| set.get(path).is_none()) {
            let hint = faults::nearest(path, set.iter().map(|(path, _)| path));
            let hint = hint.map(|path| format!(": did you mean `{path}`?")).unwrap_or_default();
            faults.push(format!("an option gives `{path}` a mode or owner, but the volume has no such file{hint}"));
        }
    }
    faults.or(set)
}

/// What one file holds.
pub fn contents_of(source: &Source, secrets: &Secrets) -> Result<SecretValue, String> {
    let value = |reference: &SecretRef| value_of(reference, secrets).map_err(|fault| format!("`{reference}`: {fault}"));
    match source {
        Source::Secret(reference) => value(reference),
        Source::Template(template) => fill::render(template, value),
    }
}

fn secret<'a>(reference: &SecretRef, secrets: &'a Secrets) -> Result<&'a SecretValue, String> {
    secrets.get(&reference.id).map(|secret| &secret.value).ok_or_else(|| "it was not read".into())
}

fn value_of(reference: &SecretRef, secrets: &Secrets) -> Result<SecretValue, String> {
    let whole = secret(reference, secrets)?;
    match &reference.field {
        Some(field) => whole.field(field).map_err(|fault| fault.to_string()),
        None => Ok(whole.clone()),
    }
}

fn fields_of(reference: &SecretRef, secrets: &Secrets) -> Result<Vec<(String, SecretValue)>, String> {
    let no_fields = |fault| format!("{fault}; mount its whole value by `file.<path>`");
    let fields = value_of(reference, secrets)?.fields().map_err(no_fields)?;
    if fields.is_empty() {
        return Err("the secret has no fields, so there is nothing to mount".into());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretVersion;

    fn secrets(pairs: &[(&str, &[u8])]) -> Secrets {
        let secret =
            |value: &[u8]| Secret { version: SecretVersion::new("1", ""), value: SecretValue::new(value.to_vec()) };
        pairs.iter().map(|(id, value)| (Arc::new(id.parse().unwrap()), Arc::new(secret(value)))).collect()
    }

    fn spec(options: &[(&str, &str)]) -> VolumeSpec {
        VolumeSpec::parse(&options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()).unwrap()
    }

    #[test]
    fn every_field_of_from_becomes_a_file_beside_the_single_ones() {
        let spec = spec(&[
            ("from", "v://app"),
            ("file.raw/all", "v://bin"),
            ("template.env", "U={{ secret('v://app#user') }}\n"),
            ("mode.user", "0400"),
        ]);
        let set = render(&spec, &secrets(&[("v://app", br#"{"user":"u","n":1}"#), ("v://bin", b"\x00\xff")])).unwrap();
        let shown: Vec<_> = set.iter().map(|(path, file)| (path, file.contents.expose(), file.mode)).collect();
        assert_eq!(
            shown,
            [("env", &b"U=u\n"[..], 0o444), ("n", b"1", 0o444), ("raw/all", b"\x00\xff", 0o444), ("user", b"u", 0o400)]
        );
    }

    #[test]
    fn all_faults_are_told_at_once_and_none_tells_a_value() {
        let spec =
            spec(&[("from", "v://app"), ("file.a", "v://app#none"), ("file.b", "v://text#x"), ("file.ok", "v://app")]);
        let values = secrets(&[("v://app", br#"{"a/b":"canary","ok":"canary"}"#), ("v://text", b"canary")]);
        let message = render(&spec, &values).unwrap_err().to_string();
        assert_eq!(
            message,
            "option `from`: `v://app`: the field `a/b` cannot be a file name: it has a `/`; name each field by `file.<path>` in place of `from`; \
             two sources for `ok`: a field of option `from`, `v://app`, and option `file.ok`; \
             option `file.a`: `v://app#none`: the secret has no field `none`; it has `a/b`, `ok`; \
             option `file.b`: `v://text#x`: the secret is not a JSON object, so it has no fields"
        );
    }

    #[test]
    fn from_without_fields_is_a_fault_and_no_empty_volume() {
        let spec = spec(&[("from", "v://app")]);
        assert!(render(&spec, &secrets(&[("v://app", b"{}")])).is_err());
    }
}
