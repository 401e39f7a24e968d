//! Files made from several secrets: minijinja templates in which `secret("<reference>")` is the only source.

use crate::secret::{RefError, SecretRef};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior,
    machinery::{self, Instruction, Instructions},
    syntax::SyntaxConfig,
};
use std::collections::BTreeMap;

/// Steps that one rendering may take: enough for any file of secrets, and an end to a loop without one.
const FUEL: u64 = 1_000_000;

/// A template whose references are known before it is rendered.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    syntax: SyntaxConfig,
    refs: BTreeMap<String, SecretRef>,
}

// === impl Template ===

impl Template {
    /// Parses a template. Every fault is found here that can be found without values: syntax, unknown
    /// names, and references that are not literal strings.
    pub fn parse(source: &str, syntax: SyntaxConfig) -> Result<Self, String> {
        let env = environment(&syntax);
        let template = env.template_from_str(source).map_err(|error| describe(&error))?;
        let mut unknown: Vec<_> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| name != "secret" && !env.globals().any(|(known, _)| known == name));
        if let Some(name) = unknown.iter().min() {
            return Err(format!("unknown name `{name}`: values come from `secret(\"<reference>\")` alone"));
        }
        let compiled = machinery::get_compiled_template(&template);
        let mut refs = BTreeMap::new();
        collect_references(&compiled.instructions, &mut refs)?;
        Ok(Self { source: source.into(), syntax, refs })
    }

    pub fn references(&self) -> impl Iterator<Item = &SecretRef> {
        self.refs.values()
    }

    /// Each reference as it is written in the template, and what it means.
    pub fn literals(&self) -> impl Iterator<Item = (&str, &SecretRef)> {
        self.refs.iter().map(|(literal, reference)| (literal.as_str(), reference))
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// What the template is parsed and rendered in; rendering adds the function `secret`.
    pub fn environment(&self) -> Environment<'static> {
        environment(&self.syntax)
    }
}

/// A template's syntax with the variable delimiters that `words` names, as in `[[ ]]`.
pub fn syntax(words: Option<&str>) -> Result<SyntaxConfig, String> {
    let mut builder = SyntaxConfig::builder();
    builder.keep_trailing_newline(true);
    if let Some(words) = words {
        let words: Vec<_> = words.split_whitespace().collect();
        let &[start, end] = words.as_slice() else {
            return Err("must be two words, such as `[[ ]]`".into());
        };
        if start == end {
            return Err("must be two words that differ, such as `[[ ]]`".into());
        }
        builder.variable_delimiters(start.to_owned(), end.to_owned());
    }
    builder.build().map_err(|_| "clash with those of blocks (`{% %}`) or comments (`{# #}`)".into())
}

fn environment(syntax: &SyntaxConfig) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_syntax(syntax.clone());
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env
}

/// Finds each `secret("literal")`; any other use of `secret` could hide a reference, and is refused.
fn collect_references(code: &Instructions<'_>, refs: &mut BTreeMap<String, SecretRef>) -> Result<(), String> {
    let not_literal = || Err("`secret` takes one reference, written as a literal string".to_owned());
    let mut previous: Option<&Instruction<'_>> = None;
    for instruction in (0..).map_while(|n| code.get(n)) {
        match instruction {
            Instruction::Lookup("secret") => return not_literal(),
            Instruction::CallFunction("secret", arguments) => {
                let Some(Instruction::LoadConst(literal)) = previous.filter(|_| *arguments == Some(1)) else {
                    return not_literal();
                };
                let Some(literal) = literal.as_str() else { return not_literal() };
                let reference = literal.parse().map_err(|fault: RefError| fault.of(literal))?;
                refs.insert(literal.to_owned(), reference);
            }
            _ => {}
        }
        previous = Some(instruction);
    }
    Ok(())
}

/// What may be said of a template's error. Its detail may quote a value (`cannot convert … to int`).
pub fn describe(error: &Error) -> String {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    let detail = error.detail().unwrap_or("it cannot be understood");
    match error.kind() {
        // Parsing has seen no value yet.
        ErrorKind::SyntaxError => format!("the template's syntax is wrong{line}: {detail}"),
        ErrorKind::OutOfFuel => {
            format!("the template takes more than {FUEL} steps, and was stopped{line}: is there a loop without an end?")
        }
        kind => format!("the template fails{line}: {kind} (the detail may quote a secret, and is not shown)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Template, String> {
        Template::parse(source, syntax(None)?)
    }

    #[test]
    fn references_in_branches_loops_and_macros_are_found_when_it_is_parsed() {
        let source = "{% if false %}{{ secret('vault://a') }}{% endif %}{% for b in [] %}{{ secret('vault://b') }}{% endfor %}\
                      {% macro m() %}{{ secret('vault://c#x') }}{% endmacro %}{{ secret('vault://d')|upper }}";
        let template = parse(source).unwrap();
        let found: Vec<_> = template.references().map(|reference| reference.to_string()).collect();
        assert_eq!(found, ["vault://a", "vault://b", "vault://c#x", "vault://d"]);
    }

    #[test]
    fn a_reference_that_is_not_a_literal_is_refused() {
        for source in [
            "{{ secret('vault://' ~ x) }}",
            "{% set s = secret %}{{ s('vault://a') }}",
            "{{ secret() }}",
            "{{ secret('vault://a', 'vault://b') }}",
            "{{ secret(1) }}",
            "{{ secret(*['vault://a']) }}",
            "{% set p = 'vault://a' %}{{ secret(p) }}",
        ] {
            assert!(parse(source).is_err(), "{source}");
        }
        assert_eq!(
            parse("{{ secret('nope') }}").unwrap_err(),
            "not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]"
        );
        assert_eq!(
            parse("{{ user }}").unwrap_err(),
            "unknown name `user`: values come from `secret(\"<reference>\")` alone"
        );
        assert_eq!(
            parse("x\n{{ secret('vault://a') ").unwrap_err(),
            "the template's syntax is wrong in line 2: unexpected end of input, expected end of variable block"
        );
    }

    #[test]
    fn delimiters_are_two_words() {
        let brackets = syntax(Some("[[ ]]")).unwrap();
        assert_eq!(Template::parse("{{ x }}[[ secret('vault://a') ]]", brackets).unwrap().references().count(), 1);
        for bad in ["", "[[", "[[ ]] x", "| |"] {
            assert!(syntax(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
