//! `--format` as Docker's own commands have it: `table`, `json`, or a template of fields.
//!
//! Of Go's templates: `{{.Field}}`, `{{json .Field}}`, `{{json .}}`, `{{upper .Field}}`, `{{lower .Field}}`, and `\t` and
//! `\n` between them. `table ` before it puts headings above aligned columns.

use super::{
    Failure,
    text::{Colour, Style, plain},
};
use crate::faults;
use serde_json::{Map, Value};

/// One thing that a `T` can tell.
pub struct Field<T> {
    pub name: &'static str,
    pub heading: &'static str,
    pub text: fn(&T) -> String,
    pub json: fn(&T) -> Value,
    pub colour: fn(&T) -> Colour,
}

/// How things are written.
pub enum Format<T: 'static> {
    Json(&'static [Field<T>]),
    Table(Template<T>),
    Lines(Template<T>),
}

pub struct Template<T: 'static> {
    fields: &'static [Field<T>],
    parts: Vec<Part<T>>,
}

enum Part<T: 'static> {
    Literal(String),
    Text(&'static Field<T>, Case),
    Json(Option<&'static Field<T>>),
}

#[derive(Clone, Copy)]
enum Case {
    AsIs,
    Upper,
    Lower,
}

const FUNCTIONS: [&str; 3] = ["json", "upper", "lower"];

// === impl Format ===

impl<T> Format<T> {
    /// `table` stands for `table <default>`.
    pub fn parse(text: &str, fields: &'static [Field<T>], default: &str) -> Result<Self, Failure> {
        let template =
            |text: &str| Template::parse(text, fields).map_err(|fault| Failure::Usage(format!("--format: {fault}")));
        match text {
            "json" => Ok(Self::Json(fields)),
            "table" => Ok(Self::Table(template(default)?)),
            _ => match text.strip_prefix("table ") {
                Some(columns) => Ok(Self::Table(template(columns)?)),
                None => Ok(Self::Lines(template(text)?)),
            },
        }
    }

    /// Every row, a line each; a table has a heading also without rows.
    pub fn lines(&self, rows: &[T], style: Style) -> Vec<String> {
        match self {
            Self::Json(fields) => rows.iter().map(|row| object(fields, row).to_string()).collect(),
            Self::Lines(template) => rows.iter().map(|row| template.line(row)).collect(),
            Self::Table(template) => {
                let mut lines = vec![template.headings()];
                lines.extend(rows.iter().map(|row| template.cells(row)));
                aligned(&lines, style)
            }
        }
    }
}

/// All that a row can tell, as JSON.
pub fn object<T>(fields: &[Field<T>], row: &T) -> Value {
    Value::Object(fields.iter().map(|field| (field.name.to_owned(), (field.json)(row))).collect::<Map<_, _>>())
}

// === impl Template ===

type Cell = (String, Colour);

impl<T> Template<T> {
    fn parse(text: &str, fields: &'static [Field<T>]) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once("{{") {
            parts.push(Part::Literal(unescape(literal)));
            let (action, after) = after.split_once("}}").ok_or("`{{` without `}}`")?;
            parts.push(Part::parse(action.trim().trim_matches('-').trim(), fields)?);
            rest = after;
        }
        parts.push(Part::Literal(unescape(rest)));
        if !parts.iter().any(|part| !matches!(part, Part::Literal(_))) {
            return Err(format!(
                "`{text}` names no field: write `table`, `json`, or fields as in `{{{{.{}}}}}`",
                fields[0].name
            ));
        }
        Ok(Self { fields, parts })
    }

    fn line(&self, row: &T) -> String {
        let parts = self.parts.iter().map(|part| part.text(self.fields, row));
        parts.collect::<String>()
    }

    fn headings(&self) -> Vec<Cell> {
        self.split(|part| match part {
            Part::Literal(text) => (text.clone(), Colour::None),
            Part::Text(field, _) | Part::Json(Some(field)) => (field.heading.to_owned(), Colour::None),
            Part::Json(None) => ("JSON".into(), Colour::None),
        })
    }

    fn cells(&self, row: &T) -> Vec<Cell> {
        self.split(|part| {
            let colour = match part {
                Part::Text(field, _) => (field.colour)(row),
                _ => Colour::None,
            };
            (part.text(self.fields, row), colour)
        })
    }

    /// Columns end at the tabs of the template, and at no other.
    fn split(&self, show: impl Fn(&Part<T>) -> Cell) -> Vec<Cell> {
        let mut cells = vec![(String::new(), Colour::None)];
        for part in &self.parts {
            let (text, colour) = show(part);
            let mut pieces = text.split('\t');
            let last = cells.len() - 1;
            cells[last].0.push_str(pieces.next().unwrap_or_default());
            if colour != Colour::None {
                cells[last].1 = colour;
            }
            cells.extend(pieces.map(|piece| (piece.to_owned(), Colour::None)));
        }
        cells
    }
}

// === impl Part ===

impl<T> Part<T> {
    fn parse(action: &str, fields: &'static [Field<T>]) -> Result<Self, String> {
        let words: Vec<_> = action.split_whitespace().collect();
        let (function, operand) = match words[..] {
            [operand] => (None, operand),
            [function, operand] => (Some(function), operand),
            _ => {
                return Err(format!(
                    "`{{{{{action}}}}}` is not understood: write `{{{{.Field}}}}` or `{{{{json .Field}}}}`"
                ));
            }
        };
        if let Some(function) = function.filter(|name| !FUNCTIONS.contains(name)) {
            return Err(faults::unknown("function", function, FUNCTIONS));
        }
        if operand == "." && function == Some("json") {
            return Ok(Self::Json(None));
        }
        let name =
            operand.strip_prefix('.').ok_or_else(|| format!("`{operand}` is no field: a field begins with a dot"))?;
        let field = fields.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| faults::unknown("field", name, fields.iter().map(|field| field.name)))?;
        Ok(match function {
            Some("json") => Self::Json(Some(field)),
            Some("upper") => Self::Text(field, Case::Upper),
            Some("lower") => Self::Text(field, Case::Lower),
            _ => Self::Text(field, Case::AsIs),
        })
    }

    fn text(&self, fields: &[Field<T>], row: &T) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Json(None) => object(fields, row).to_string(),
            Self::Json(Some(field)) => (field.json)(row).to_string(),
            Self::Text(field, case) => {
                let text = plain(&(field.text)(row));
                match case {
                    Case::AsIs => text,
                    Case::Upper => text.to_uppercase(),
                    Case::Lower => text.to_lowercase(),
                }
            }
        }
    }
}

/// What shells pass on as two characters.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Columns with three spaces between them, as in Docker's tables.
pub fn aligned(rows: &[Vec<Cell>], style: Style) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let mut widths = Vec::new();
    for (column, (text, _)) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        if widths.len() <= column {
            widths.push(0);
        }
        widths[column] = width(text).max(widths[column]);
    }
    let line = |row: &Vec<Cell>| {
        let cells = row.iter().zip(&widths).map(|((text, colour), wide)| {
            format!("{}{}", style.paint(*colour, text), " ".repeat(wide - width(text) + 3))
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str, u32);

    const FIELDS: &[Field<Row>] = &[
        Field {
            name: "Name",
            heading: "NAME",
            text: |row| row.0.into(),
            json: |row| row.0.into(),
            colour: |_| Colour::None,
        },
        Field {
            name: "Count",
            heading: "COUNT",
            text: |row| format!("{} times", row.1),
            json: |row| row.1.into(),
            colour: |row| if row.1 > 1 { Colour::Red } else { Colour::None },
        },
    ];

    fn written(format: &str, colour: bool) -> Result<Vec<String>, String> {
        let rows = [Row("a\tb", 1), Row("long-name", 22)];
        match Format::parse(format, FIELDS, "{{.Name}}\t{{.Count}}") {
            Ok(format) => Ok(format.lines(&rows, Style { terminal: colour, colour })),
            Err(Failure::Usage(fault)) => Err(fault),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_written_as_the_format_says() {
        for (format, lines) in [
            ("table", &["NAME        COUNT", "a b         1 times", "long-name   22 times"][..]),
            ("table {{.Count}}\\t{{upper .Name}}", &["COUNT      NAME", "1 times    A B", "22 times   LONG-NAME"]),
            ("json", &[r#"{"Count":1,"Name":"a\tb"}"#, r#"{"Count":22,"Name":"long-name"}"#]),
            ("{{json .}}", &[r#"{"Count":1,"Name":"a\tb"}"#, r#"{"Count":22,"Name":"long-name"}"#]),
            ("{{ .Name }}: {{json .Count}}", &["a b: 1", "long-name: 22"]),
        ] {
            assert_eq!(written(format, false).unwrap(), lines, "{format}");
        }
        assert_eq!(written("table", true).unwrap()[2], "long-name   \x1b[31m22 times\x1b[0m");
    }

    #[test]
    fn what_is_not_understood_names_what_is() {
        for (format, fault) in [
            ("{{.Nmae}}", "--format: unknown field `Nmae`: did you mean `Name`?"),
            ("{{.Zzzzzz}}", "--format: unknown field `Zzzzzz`: known are `Name`, `Count`"),
            ("{{jsn .Name}}", "--format: unknown function `jsn`: did you mean `json`?"),
            ("{{Name}}", "--format: `Name` is no field: a field begins with a dot"),
            ("{{.Name", "--format: `{{` without `}}`"),
            ("tabel", "--format: `tabel` names no field: write `table`, `json`, or fields as in `{{.Name}}`"),
            ("{{if .Name}}x{{end}}", "--format: unknown function `if`: known are `json`, `upper`, `lower`"),
        ] {
            assert_eq!(written(format, false), Err(fault.into()), "{format}");
        }
    }
}
