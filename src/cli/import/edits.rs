//! Changes of a text by place: everything between them stays byte for byte.

use std::ops::Range;
use zeroize::Zeroizing;

/// What replaces a range of the text; an empty range is an insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub range: Range<usize>,
    pub text: String,
}

/// The edits of one text.
#[derive(Default)]
pub struct Edits {
    edits: Vec<Edit>,
    /// Places that must not be shown, whether they change or not.
    masks: Vec<Range<usize>>,
}

// === impl Edits ===

impl Edits {
    pub fn replace(&mut self, range: Range<usize>, text: impl Into<String>) {
        let edit = Edit { range, text: text.into() };
        if !self.edits.contains(&edit) {
            self.edits.push(edit);
        }
    }

    pub fn insert(&mut self, at: usize, text: impl Into<String>) {
        // Not compared with the others: two lists may get equal items at one place.
        self.edits.push(Edit { range: at..at, text: text.into() });
    }

    pub fn mask(&mut self, range: Range<usize>) {
        if !range.is_empty() && !self.masks.contains(&range) {
            self.masks.push(range);
        }
    }

    /// The text with all edits made. The fault is one of this program: two edits of one place.
    pub fn apply(&self, text: &str) -> Result<Zeroizing<String>, String> {
        render(text, 0..text.len(), &self.sorted()?)
    }

    /// What changes, line by line, as `diff` shows it; what is masked shows its length only.
    pub fn diff(&self, text: &str) -> Result<String, String> {
        let edits = self.sorted()?;
        let hidden: Vec<Edit> = self.masks.iter().map(|range| hide(text, range)).collect();
        let mut kept: Vec<Edit> =
            hidden.iter().filter(|mask| !edits.iter().any(|edit| overlap(&edit.range, &mask.range))).cloned().collect();
        kept.extend(edits.iter().cloned());
        kept.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let mut out = String::new();
        for region in regions(text, &edits) {
            let within = |edit: &&Edit| region.start <= edit.range.start && edit.range.end <= region.end;
            let masked: Vec<Edit> = hidden.iter().filter(within).cloned().collect();
            let edited: Vec<Edit> = kept.iter().filter(within).cloned().collect();
            let line = 1 + text[..region.start].matches('\n').count();
            out.push_str(&format!("@@ line {line} @@\n"));
            let (old, new) = (render(text, region.clone(), &masked)?, render(text, region, &edited)?);
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            // The lines that an insertion beside them left as they were.
            let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
            old[same..].iter().for_each(|line| out.push_str(&format!("-{line}\n")));
            new[same..].iter().for_each(|line| out.push_str(&format!("+{line}\n")));
        }
        Ok(out)
    }

    fn sorted(&self) -> Result<Vec<Edit>, String> {
        let mut edits = self.edits.clone();
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        match edits.windows(2).any(|two| two[0].range.end > two[1].range.start) {
            true => Err("two changes meet at one place; nothing was changed".into()),
            false => Ok(edits),
        }
    }
}

fn hide(text: &str, range: &Range<usize>) -> Edit {
    let hidden = &text[range.clone()];
    let lines = match hidden.lines().count() {
        0 | 1 => String::new(),
        several => format!(" in {several} lines"),
    };
    Edit { range: range.clone(), text: format!("<{} characters{lines}>", hidden.chars().count()) }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn render(text: &str, region: Range<usize>, edits: &[Edit]) -> Result<Zeroizing<String>, String> {
    let grown: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = Zeroizing::new(String::with_capacity(region.len() + grown));
    let mut at = region.start;
    for Edit { range, text: new } in edits {
        let kept = text.get(at..range.start).ok_or("two changes meet at one place; nothing was changed")?;
        out.push_str(kept);
        out.push_str(new);
        at = range.end;
    }
    out.push_str(&text[at..region.end]);
    Ok(out)
}

/// The whole lines that edits touch; neighbours are one region.
fn regions(text: &str, edits: &[Edit]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for Edit { range, text: new } in edits {
        let start = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
        let before_a_line = range.is_empty() && start == range.start && new.ends_with('\n');
        let whole = range.end > range.start && text[..range.end].ends_with('\n');
        let end = match before_a_line || whole {
            true => range.end,
            false => text[range.end..].find('\n').map_or(text.len(), |at| range.end + at + 1),
        };
        match found.last_mut() {
            Some(last) if start < last.end || start == last.end && last.start < last.end => {
                last.end = last.end.max(end)
            }
            _ => found.push(start..end),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a: 1\nb: hunter2 # c\nd: [hunter3, x]\ne: 5\n";

    fn at(part: &str) -> Range<usize> {
        let start = TEXT.find(part).unwrap();
        start..start + part.len()
    }

    #[test]
    fn lines_that_no_edit_touches_stay_and_no_masked_value_is_shown() {
        let mut edits = Edits::default();
        edits.replace(at("hunter2"), "file");
        edits.replace(at("hunter2"), "file");
        edits.replace(at("x]").start..at("x]").start + 1, "y");
        edits.insert(at("e: 5").start, "new: 1\n");
        edits.mask(at("hunter2"));
        edits.mask(at("hunter3"));
        assert_eq!(&*edits.apply(TEXT).unwrap(), "a: 1\nb: file # c\nd: [hunter3, y]\nnew: 1\ne: 5\n");
        let diff = edits.diff(TEXT).unwrap();
        assert_eq!(
            diff,
            "@@ line 2 @@\n-b: <7 characters> # c\n-d: [<7 characters>, x]\n+b: file # c\n+d: [<7 characters>, y]\n+new: 1\n"
        );
    }

    #[test]
    fn edits_that_meet_are_refused() {
        let mut edits = Edits::default();
        edits.replace(at("hunter2"), "x");
        edits.replace(at("hunter2 # c"), "y");
        assert!(edits.apply(TEXT).is_err());
    }
}
