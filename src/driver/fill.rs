//! Renders a template with the values of its secrets.

use crate::{
    secret::{SecretRef, SecretValue},
    volume::template::{self, Template},
};
use minijinja::{Error, ErrorKind};
use std::{collections::HashMap, sync::Arc};
use zeroize::Zeroizing;

/// Renders `template` with the values that `lookup` gives.
///
/// Errors name a place in the template and a kind, never what minijinja says of the values.
///
/// # Caveats
/// minijinja keeps copies of a value while it renders, and frees them without wiping.
pub fn render(
    template: &Template,
    lookup: impl Fn(&SecretRef) -> Result<SecretValue, String>,
) -> Result<SecretValue, String> {
    let mut values = HashMap::new();
    for (literal, reference) in template.literals() {
        let value = lookup(reference)?;
        let text = std::str::from_utf8(value.expose());
        let binary = |_| {
            format!(
                "`{reference}`: the value is binary, and a template is text: give it a file of its own by `file.<path>`"
            )
        };
        values.insert(literal.to_owned(), Zeroizing::new(text.map_err(binary)?.to_owned()));
    }
    let values = Arc::new(values);
    let mut env = template.environment();
    env.add_function("secret", move |literal: &str| match values.get(literal) {
        Some(text) => Ok(text.as_str().to_owned()),
        None => Err(Error::new(ErrorKind::InvalidOperation, "unknown reference")),
    });
    let parsed = env.template_from_str(template.source()).map_err(|error| template::describe(&error))?;
    parsed.render(()).map(|text| Zeroizing::new(text).into()).map_err(|error| template::describe(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Template, String> {
        Template::parse(source, template::syntax(None)?)
    }

    fn render(source: &str) -> Result<String, String> {
        let value = super::render(&parse(source)?, |reference| match reference.to_string().as_str() {
            "vault://a#user" => Ok(SecretValue::new(b"app<&>".to_vec())),
            "vault://a#pin" => Ok(SecretValue::new(b"canary".to_vec())),
            _ => Ok(SecretValue::new(vec![0xff])),
        })?;
        Ok(String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_template_gets_its_values_unescaped_and_keeps_its_last_newline() {
        assert_eq!(render("u={{ secret(\"vault://a#user\") }}\n").unwrap(), "u=app<&>\n");
        assert_eq!(
            render("{% for x in range(2) %}{{ secret('vault://a#user')|length }},{% endfor %}").unwrap(),
            "6,6,"
        );
        assert_eq!(
            render("{{ {'k': secret('vault://a#user')}|tojson }}").unwrap(),
            r#"{"k": "app\u003c\u0026\u003e"}"#
        );
    }

    #[test]
    fn an_error_while_rendering_tells_no_value() {
        for source in [
            "{{ secret('vault://a#pin')|int }}",
            "{{ secret('vault://a#pin').x.y }}",
            "{{ secret('vault://a#pin') + 1 }}",
        ] {
            let error = render(source).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
            assert!(error.contains("in line 1"), "{error}");
        }
        assert!(render("{{ secret('vault://bin') }}").unwrap_err().contains("`vault://bin`: the value is binary"));
        assert_eq!(
            render("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}").unwrap_err(),
            "the template takes more than 1000000 steps, and was stopped in line 1: is there a loop without an end?"
        );
    }
}
