//! A terminal's screen: as much of one as the command writes to, and its picture.

use std::fmt::Write;

/// A run of text in one way of writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Piece {
    class: &'static str,
    text: String,
}

const STYLE: &str = "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d8dee9;white-space:pre}\
    .b{font-weight:bold;fill:#fff}.d{fill:#8a93a5}.g{fill:#8fce72}.y{fill:#e8c46a}.r{fill:#f0716f}";
/// Of one character, in the font above.
const WIDTH: f64 = 8.43;
const HEIGHT: usize = 20;
const MARGIN: usize = 16;

/// The picture of what was written to a terminal.
pub fn svg(written: &str) -> String {
    let lines = lines(written);
    let longest = lines.iter().map(|line| line.iter().map(|piece| piece.text.chars().count()).sum::<usize>()).max();
    let width = (longest.unwrap_or_default() as f64 * WIDTH).ceil() as usize + 2 * MARGIN;
    let height = lines.len() * HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#20242c\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let y = MARGIN + row * HEIGHT + 15;
        let _ = write!(svg, "<text x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\">");
        for Piece { class, text } in line {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let _ = match *class {
                "" => write!(svg, "{text}"),
                class => write!(svg, "<tspan class=\"{class}\">{text}</tspan>"),
            };
        }
        svg.push_str("</text>\n");
    }
    svg + "</svg>\n"
}

/// What stands on the screen in the end.
fn lines(written: &str) -> Vec<Vec<Piece>> {
    let (mut lines, mut class, mut rest) = (vec![Vec::<Piece>::new()], "", written);
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        let last = lines.len() - 1;
        match character {
            '\n' => lines.push(Vec::new()),
            '\r' => {}
            '\x1b' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
                match &rest[..=end] {
                    // Written to its beginning before, and now wiped.
                    "[K" => lines[last].clear(),
                    "[0m" => class = "",
                    "[1m" => class = "b",
                    "[2m" => class = "d",
                    "[31m" => class = "r",
                    "[32m" => class = "g",
                    "[33m" => class = "y",
                    other => panic!("the sequence {other:?} is not known here"),
                }
                rest = &rest[end + 1..];
            }
            _ => match lines[last].last_mut().filter(|piece| piece.class == class) {
                Some(piece) => piece.text.push(character),
                None => lines[last].push(Piece { class, text: character.into() }),
            },
        }
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}
