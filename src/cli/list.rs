//! Lists of records: an aligned table on a terminal, lines of tab-separated fields elsewhere, or JSON.

use std::{
    fmt::Display,
    io::{self, IsTerminal},
};

use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};
use serde::{Serialize, Serializer, ser::SerializeMap};
use unicode_width::UnicodeWidthStr;

use super::{Failure, output::Lines, printable::field, reason};

/// The most records that a table keeps in memory to align them. A longer list is aligned in parts.
const ALIGNED_RECORDS_MAX: usize = 500;

/// The space between two columns of a table.
const GAP: &str = "  ";

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// Aligned columns under a header; the default on a terminal
    Table,
    /// One record per line, its fields separated by tabs, without a header; the default elsewhere
    Tabs,
    /// One record per line as a JSON object, whose names are those of the table's header in lower case
    Json,
}

// No documentation comment: clap would show it instead of that of the subcommand.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct FormatFlag {
    /// How the list is printed
    #[arg(long, value_enum)]
    format: Option<ListFormat>,
}

/// The value of a field.
pub(super) enum Field {
    Absent,
    Text(String),
    Number(u64),
    Texts(Vec<String>),
}

impl Field {
    pub(super) fn text(text: impl Display) -> Self {
        Self::Text(text.to_string())
    }

    /// Returns the text of a value, or [`Field::Absent`].
    pub(super) fn optional(text: Option<&impl Display>) -> Self {
        text.map_or(Self::Absent, Self::text)
    }

    /// Returns a number that fits in 64 bits; a greater one, which no list has, as the greatest.
    pub(super) fn number(number: impl TryInto<u64>) -> Self {
        Self::Number(number.try_into().unwrap_or(u64::MAX))
    }

    /// Returns the value as a field of a line, in which foreign text is escaped.
    fn to_field(&self) -> String {
        match self {
            Self::Absent => "-".to_owned(),
            Self::Text(text) => field(text),
            Self::Number(number) => number.to_string(),
            Self::Texts(texts) => field(&texts.join(" ")),
        }
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Texts(texts) => texts.serialize(serializer),
        }
    }
}

/// A record: a value for each column, and fields that only some records have.
pub(super) struct Record<const COLUMNS: usize> {
    pub(super) values: [Field; COLUMNS],
    pub(super) more: Vec<(&'static str, Field)>,
}

impl<const COLUMNS: usize> From<[Field; COLUMNS]> for Record<COLUMNS> {
    fn from(values: [Field; COLUMNS]) -> Self {
        Self { values, more: Vec::new() }
    }
}

/// A record with the names of its columns, as an object of JSON.
struct Object<'a, const COLUMNS: usize>(&'a [&'static str; COLUMNS], &'a Record<COLUMNS>);

impl<const COLUMNS: usize> Serialize for Object<'_, COLUMNS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(columns, record) = self;
        let mut object = serializer.serialize_map(Some(COLUMNS.saturating_add(record.more.len())))?;
        for (name, value) in columns.iter().zip(&record.values) {
            object.serialize_entry(name, value)?;
        }
        for (name, value) in &record.more {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

/// A list that is being printed.
pub(super) struct List<const COLUMNS: usize> {
    format: ListFormat,
    columns: [&'static str; COLUMNS],
    lines: Lines,
    /// The records of a table that are not printed yet, as fields, with the rest of the line.
    rows: Vec<([String; COLUMNS], String)>,
    /// The widths of the columns so far, in columns of a terminal.
    widths: [usize; COLUMNS],
    is_header_due: bool,
}

impl<const COLUMNS: usize> List<COLUMNS> {
    /// Begins a list with these columns.
    pub(super) fn new(FormatFlag { format }: FormatFlag, columns: [&'static str; COLUMNS]) -> Self {
        let default = if io::stdout().is_terminal() { ListFormat::Table } else { ListFormat::Tabs };
        Self {
            format: format.unwrap_or(default),
            columns,
            lines: Lines::new(),
            rows: Vec::new(),
            widths: columns.map(UnicodeWidthStr::width),
            is_header_due: true,
        }
    }

    /// Prints a record, a table some time later. Returns true if the reader has closed the pipe, so that
    /// further records are of no use.
    ///
    /// # Errors
    /// It cannot be printed.
    pub(super) fn add(&mut self, record: impl Into<Record<COLUMNS>>) -> Result<bool, Failure> {
        let record = record.into();
        match self.format {
            ListFormat::Json => {
                let object = serde_json::to_string(&Object(&self.columns, &record)).map_err(reason)?;
                self.lines.line(object)
            }
            ListFormat::Tabs => {
                let mut fields: Vec<_> = record.values.iter().map(Field::to_field).collect();
                fields.extend(record.more.iter().map(named));
                self.lines.line(fields.join("\t"))
            }
            ListFormat::Table => {
                let fields = record.values.map(|value| value.to_field());
                for (width, text) in self.widths.iter_mut().zip(&fields) {
                    *width = text.width().max(*width);
                }
                self.rows.push((fields, record.more.iter().map(named).collect::<Vec<_>>().join(GAP)));
                if self.rows.len() < ALIGNED_RECORDS_MAX { Ok(false) } else { self.print_rows() }
            }
        }
    }

    /// Prints what is left.
    ///
    /// # Errors
    /// It cannot be printed.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        if self.format == ListFormat::Table {
            self.print_rows()?;
        }
        self.lines.finish()
    }

    fn print_rows(&mut self) -> Result<bool, Failure> {
        if std::mem::take(&mut self.is_header_due) {
            let header = aligned(&self.columns.map(str::to_uppercase), &self.widths, "");
            self.lines.header(&header, is_colored())?;
        }
        for (fields, rest) in std::mem::take(&mut self.rows) {
            if self.lines.line(aligned(&fields, &self.widths, &rest))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Formats a field with its name.
fn named((name, value): &(&'static str, Field)) -> String {
    format!("{name}={}", value.to_field())
}

/// Pads the fields to the widths of their columns. No line ends with spaces.
fn aligned(fields: &[String], widths: &[usize], rest: &str) -> String {
    let mut line = String::new();
    for (text, width) in fields.iter().zip(widths) {
        line.push_str(text);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(text.width())));
        line.push_str(GAP);
    }
    line.push_str(rest);
    line.truncate(line.trim_end().len());
    line
}

/// True if standard output is a terminal that shows colors, and `NO_COLOR` is not set
/// (<https://no-color.org>).
fn is_colored() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_their_width_on_a_terminal() {
        let widths = [4, 3];
        let line =
            |first: &str, second: &str| aligned(&[first.to_owned(), second.to_owned()], &widths, "x=1");
        assert_eq!(line("ab", "c"), "ab    c    x=1");
        assert_eq!(line("李雷", "c"), "李雷  c    x=1");
        assert_eq!(aligned(&["ab".to_owned(), "c".to_owned()], &widths, ""), "ab    c");
    }

    #[test]
    fn a_record_is_an_object_with_its_columns_in_their_order() {
        let record = Record {
            values: [Field::text("a\t\"b"), Field::Absent, Field::Number(3)],
            more: vec![("methods", Field::Texts(vec!["x".to_owned(), "y".to_owned()]))],
        };
        let object = serde_json::to_string(&Object(&["name", "user", "count"], &record)).unwrap();
        assert_eq!(object, r#"{"name":"a\t\"b","user":null,"count":3,"methods":["x","y"]}"#);
    }
}
