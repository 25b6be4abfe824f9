//! The text of a settings file as keys and values; where it is not TOML, one answer for each fault and none that is
//! made up.
//!
//! What a parser guesses behind a fault is not trusted. A fault of one line takes this line out and leaves the rest; one
//! that has no end (a list or a text that is not closed) takes out the rest of its section, and one in the name of a
//! section takes out the section. What was taken out is kept as [`Value::Unreadable`]: it was written, so it is not
//! reported as missing.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::Problem;
use super::layer::Entry;
use super::value::{Origin, Value, is_secret};

/// More faults than this in one section are one fault that the parser stumbles over again and again.
const FAULTS_MAX: usize = 20;

/// Reads TOML, in the order in which it is written. `origin` is given the line of each key, from 1.
pub(super) fn from_toml(
    text: &str,
    origin: impl Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) -> Vec<Entry> {
    let sound = Sound::new(text);
    for Fault { line, key, allowed } in &sound.faults {
        problems.push(Problem {
            key: key.clone().unwrap_or_else(|| format!("line {}", line + 1)),
            value: None,
            allowed: allowed.clone(),
            origin: origin(line + 1),
        });
    }
    let text = sound.lines.concat();
    let (table, _none_left) = DeTable::parse_recoverable(&text);
    let mut found = Vec::new();
    flatten(table.get_ref(), "", None, &mut found);
    found.sort_by_key(|it| it.span.start);
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_of = |at: usize| ends.partition_point(|end| *end < at);
    // A list that a line was taken out of is not the list that was meant.
    found.retain(|it| {
        let lines = line_of(it.span.start)..=line_of(it.span.end);
        !sound.faults.iter().any(|fault| lines.contains(&fault.line))
    });
    let read = found.into_iter().map(|it| {
        let line = line_of(it.span.start);
        (line, it.section.map_or(line, line_of), it.key, it.value)
    });
    let taken_out = sound.unreadable.into_iter();
    let taken_out = taken_out.map(|(line, key)| (line, line, key, Value::Unreadable));
    let mut all: Vec<_> = read.chain(taken_out).collect();
    all.sort_by_key(|(line, ..)| *line);
    all.into_iter()
        .map(|(line, section, key, value)| Entry {
            key,
            value,
            origin: origin(line + 1),
            section: origin(section + 1),
        })
        .collect()
}

/// One place where the text is not TOML.
#[derive(Debug)]
struct Fault {
    /// From 0.
    line: usize,
    /// The key in that line, where it has one.
    key: Option<String>,
    allowed: String,
}

/// A text without its faults: as many lines, those with a fault empty.
#[derive(Debug)]
struct Sound<'a> {
    lines: Vec<&'a str>,
    faults: Vec<Fault>,
    /// Keys and sections that were taken out, and their lines.
    unreadable: Vec<(usize, String)>,
}

impl<'a> Sound<'a> {
    fn new(text: &'a str) -> Self {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut sound = Self { lines, faults: Vec::new(), unreadable: Vec::new() };
        if first_error(text).is_none() {
            return sound;
        }
        let mut starts: Vec<usize> = vec![0];
        starts.extend((1..sound.lines.len()).filter(|at| is_header(sound.line(*at))));
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(sound.lines.len());
            sound.mend(*start..end);
        }
        // What only shows between sections: one that is written twice, or a key that is a section elsewhere.
        while let Some((line, message)) = first_error(&sound.lines.concat()) {
            if sound.faults.len() > FAULTS_MAX || sound.line(line).trim().is_empty() {
                break;
            }
            let section = sound.section_of(line);
            sound.fault(line, section.as_deref(), &message);
            let end = (line + 1..sound.lines.len()).find(|at| is_header(sound.line(*at)));
            let is_section = is_header(sound.line(line));
            let end = if is_section { end.unwrap_or(sound.lines.len()) } else { line + 1 };
            sound.take_out(line..end);
        }
        sound.faults.sort_by_key(|fault| fault.line);
        sound
    }

    fn line(&self, at: usize) -> &'a str {
        self.lines.get(at).copied().unwrap_or_default()
    }

    /// The section that a line lies in.
    fn section_of(&self, line: usize) -> Option<String> {
        (0..=line).rev().find_map(|at| header_name(self.line(at)))
    }

    fn take_out(&mut self, range: Range<usize>) {
        for line in self.lines.get_mut(range).into_iter().flatten() {
            *line = if line.ends_with('\n') { "\n" } else { "" };
        }
    }

    /// Takes the faults out of one section.
    fn mend(&mut self, range: Range<usize>) {
        let start = range.start;
        let header = self.line(start);
        if is_header(header) && first_error(header).is_some() {
            let allowed = "the name of a section in brackets and nothing behind it, as [batch]";
            self.faults.push(Fault { line: start, key: None, allowed: allowed.to_owned() });
            self.unreadable.extend(header_name(header).map(|name| (start, name)));
            self.take_out(range);
            return;
        }
        let section = header_name(header);
        let before: Vec<&str> = self.lines.get(range.clone()).unwrap_or_default().to_vec();
        let (faults, unreadable) = (self.faults.len(), self.unreadable.len());
        loop {
            let text = self.lines.get(range.clone()).unwrap_or_default().concat();
            let Some((line, message)) = first_error(&text) else { return };
            let line = start + line;
            let opened = (start..=line).find(|at| !is_closed(self.lines.get(*at..range.end)));
            let is_one_line = !self.line(line).trim().is_empty();
            if opened.is_none() && is_one_line && self.faults.len() - faults < FAULTS_MAX {
                self.fault(line, section.as_deref(), &message);
                self.take_out(line..line + 1);
                continue;
            }
            let fault = match opened {
                Some(at) => self.never_closed(at, section.as_deref()),
                None => {
                    // Only the first is sure; the others may be no more than what followed from it.
                    let first = self.faults.drain(faults..).next();
                    self.unreadable.truncate(unreadable);
                    if let Some(lines) = self.lines.get_mut(range.clone()) {
                        lines.copy_from_slice(&before);
                    }
                    first.unwrap_or(Fault { line, key: None, allowed: not_toml(&message) })
                }
            };
            let from = fault.line;
            self.faults.push(fault);
            self.unreadable.push((from, section.unwrap_or_default()));
            self.take_out(from..range.end);
            return;
        }
    }

    /// Notes what is wrong with a line.
    fn fault(&mut self, line: usize, section: Option<&str>, message: &str) {
        let text = self.line(line);
        let key = key_of(text, section);
        let allowed = if message.contains("duplicate key") {
            let is_first = |at: &usize| {
                is_same_key(self.line(*at), text, self.section_of(*at).as_deref(), section)
            };
            match (0..line).find(is_first) {
                Some(first) => {
                    format!("stands here a second time; the first is in line {}", first + 1)
                }
                None => "stands here a second time".to_owned(),
            }
        } else {
            key.as_deref().and_then(|key| quoted(key, text)).unwrap_or_else(|| not_toml(message))
        };
        if let Some(key) = &key
            && !message.contains("duplicate key")
        {
            self.unreadable.push((line, key.clone()));
        }
        let key = key.or_else(|| header_name(text));
        self.faults.push(Fault { line, key, allowed });
    }

    fn never_closed(&self, line: usize, section: Option<&str>) -> Fault {
        let text = self.line(line);
        let allowed = if text.contains("\"\"\"") || text.contains("'''") {
            "a text over several lines is closed as it is opened, with three quotation marks"
        } else {
            "this list is not closed: a ] is missing, or a comma between two of its values"
        };
        Fault { line, key: key_of(text, section), allowed: allowed.to_owned() }
    }
}

/// The first fault of a text: its line, from 0, and what the parser says.
fn first_error(text: &str) -> Option<(usize, String)> {
    let (_, errors) = DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let first = errors.iter().min_by_key(|error| at(error))?;
    Some((line_of(text, at(first)), first.message().replace('\n', ", ")))
}

fn not_toml(message: &str) -> String {
    format!("not TOML: {message}")
}

/// From 0.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Whether a line begins a section, or tries to. Lists in lists, which could begin so too, are nowhere in the settings.
fn is_header(line: &str) -> bool {
    let mut inside = line.trim_start().chars().skip_while(|it| *it == '[');
    line.trim_start().starts_with('[')
        && inside.next().is_some_and(|it| it.is_alphanumeric() || it == '_' || it == '"')
        && !line.trim_start().starts_with("[\"")
}

fn header_name(line: &str) -> Option<String> {
    let inside = line.trim_start().strip_prefix('[')?.trim_start_matches('[');
    is_header(line).then(|| inside.split(']').next().unwrap_or(inside).trim().to_owned())
}

/// The whole key that a line sets.
fn key_of(line: &str, section: Option<&str>) -> Option<String> {
    let name = line.split_once('=')?.0.trim();
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.');
    (!name.is_empty() && name.chars().all(plain)).then(|| match section {
        Some(section) => format!("{section}.{name}"),
        None => name.to_owned(),
    })
}

fn is_same_key(one: &str, other: &str, of_one: Option<&str>, of_other: Option<&str>) -> bool {
    match (key_of(one, of_one), key_of(other, of_other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => header_name(one).is_some() && header_name(one) == header_name(other),
        _ => false,
    }
}

/// What to write instead of a word without quotation marks; nothing of a value that may be a secret is shown.
fn quoted(key: &str, line: &str) -> Option<String> {
    let value = line.split_once('=')?.1.split('#').next()?.trim();
    let leaf = key.rsplit('.').next()?;
    if value.is_empty() {
        return Some(format!("a value behind the =; \"\" is an empty text: {leaf} = \"\""));
    }
    let lower = value.to_ascii_lowercase();
    if matches!(lower.as_str(), "true" | "false" | "yes" | "no" | "on" | "off") {
        return Some("true or false, in lower case".to_owned());
    }
    let is_word =
        value.chars().all(|it| it.is_alphanumeric() || matches!(it, '-' | '/' | '_' | '.'));
    if is_word && !is_secret(key) {
        return Some(format!("a text stands in quotation marks: {leaf} = \"{value}\""));
    }
    if !value.contains(['"', '\'', '[', '{']) {
        return Some(format!("a text stands in quotation marks: {leaf} = \"…\""));
    }
    None
}

/// Whether the list or the text over several lines that begins in the first of these lines ends in one of them; also
/// where none begins there.
fn is_closed(lines: Option<&[&str]>) -> bool {
    let Some([first, rest @ ..]) = lines else { return true };
    let Some((_, value)) = first.split_once('=') else { return true };
    let count = |text: &str, mark: &str| text.matches(mark).count();
    let is_text_closed =
        |mark: &str| count(value, mark) % 2 == 0 || rest.iter().any(|line| line.contains(mark));
    let opened = |line: &str| {
        let code = without_texts(line);
        (count(&code, "["), count(&code, "]"))
    };
    let (mut begun, mut ended) = opened(value);
    for line in rest.iter().take_while(|line| !line.contains(" = ")) {
        let (more, less) = opened(line);
        (begun, ended) = (begun + more, ended + less);
    }
    is_text_closed("\"\"\"") && is_text_closed("'''") && begun <= ended
}

/// A line without what is in quotation marks and after `#`.
fn without_texts(line: &str) -> String {
    let mut quote = None;
    let mut code = String::new();
    for letter in line.chars() {
        match (quote, letter) {
            (None, '#') => break,
            (None, '"' | '\'') => quote = Some(letter),
            (None, letter) => code.push(letter),
            (Some(mark), letter) if mark == letter => quote = None,
            (Some(_), _) => {}
        }
    }
    code
}

/// One key of a table.
#[derive(Debug)]
struct Found {
    key: String,
    value: Value,
    /// From the key to the end of the value.
    span: Range<usize>,
    /// Where its section is named.
    section: Option<usize>,
}

fn flatten(table: &DeTable<'_>, prefix: &str, section: Option<usize>, found: &mut Vec<Found>) {
    for (name, value) in table {
        let part = name.get_ref().as_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // A part that needs quotation marks keeps them: a dot inside it is no level.
        let part = if !part.is_empty() && part.bytes().all(plain) {
            part.to_owned()
        } else {
            format!("{part:?}")
        };
        let key = if prefix.is_empty() { part } else { format!("{prefix}.{part}") };
        match value.get_ref() {
            DeValue::Table(inner) if inner.iter().next().is_some() => {
                flatten(inner, &key, Some(name.span().start), found);
            }
            other => found.push(Found {
                key,
                value: written(other),
                span: name.span().start..value.span().end.max(name.span().end),
                section,
            }),
        }
    }
}

fn written(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Value::Bare(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let decimal = u64::from_str_radix(number.as_str(), number.radix());
            Value::Bare(decimal.map_or_else(|_| number.to_string(), |decimal| decimal.to_string()))
        }
        DeValue::Float(number) => Value::Bare(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Bare(flag.to_string()),
        DeValue::Datetime(time) => Value::Bare(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| written(item.get_ref())).collect())
        }
        DeValue::Table(_) => Value::Section,
    }
}
