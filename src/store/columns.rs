//! SQL types of the two kinds of column that differ between the engines: UUIDs and UTC timestamps.
//!
//! PostgreSQL stores its own `uuid` and `timestamptz`, sent in binary form. SQLite stores text: `CHAR(36)` in
//! lower case with hyphens, and `YYYY-MM-DD HH:MM:SS.ffffff`. The text sorts in the order of the values, and
//! Django can read it.

use std::io::Write;

use diesel::{
    backend::Backend,
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    query_builder::QueryId,
    serialize::{self, IsNull, Output, ToSql},
    sql_types::SqlType,
    sqlite::Sqlite,
};
use time::{Date, Month, OffsetDateTime, Time};
use uuid::Uuid;

use crate::domain::Timestamp;

/// A UUID: PostgreSQL's `uuid`; text of 36 characters on SQLite.
#[derive(SqlType, QueryId, Clone, Copy, Debug)]
#[diesel(postgres_type(oid = 2950, array_oid = 2951))]
#[diesel(sqlite_type(name = "Text"))]
pub struct SqlUuid;

/// A UTC timestamp with microseconds: PostgreSQL's `timestamptz`; text of 26 characters on SQLite.
#[derive(SqlType, QueryId, Clone, Copy, Debug)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Text"))]
pub struct SqlTimestamp;

/// A value of a [`SqlUuid`] column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = SqlUuid)]
pub struct UuidColumn(pub Uuid);

/// A value of a [`SqlTimestamp`] column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = SqlTimestamp)]
pub struct TimestampColumn(pub Timestamp);

/// PostgreSQL's epoch, 2000-01-01 00:00:00 UTC, in microseconds since the Unix epoch.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl ToSql<SqlUuid, Pg> for UuidColumn {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<SqlUuid, Pg> for UuidColumn {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.as_bytes())?))
    }
}

impl ToSql<SqlUuid, Sqlite> for UuidColumn {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.hyphenated().to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<SqlUuid, Sqlite> for UuidColumn {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::try_parse(value.read_text())?))
    }
}

impl ToSql<SqlTimestamp, Pg> for TimestampColumn {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&self.0.unix_micros().saturating_sub(POSTGRES_EPOCH_MICROS).to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<SqlTimestamp, Pg> for TimestampColumn {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let micros = i64::from_be_bytes(value.as_bytes().try_into()?);
        Ok(Self(Timestamp::from_unix_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))))
    }
}

impl ToSql<SqlTimestamp, Sqlite> for TimestampColumn {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(to_text(self.0)?);
        Ok(IsNull::No)
    }
}

impl FromSql<SqlTimestamp, Sqlite> for TimestampColumn {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        from_text(value.read_text())
            .map(Self)
            .ok_or_else(|| "the timestamp is not in the form YYYY-MM-DD HH:MM:SS.ffffff".into())
    }
}

/// Formats a timestamp as `YYYY-MM-DD HH:MM:SS.ffffff`.
pub(crate) fn to_text(at: Timestamp) -> Result<String, time::error::ComponentRange> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.unix_micros()) * 1_000)?;
    let (date, time) = (at.date(), at.time());
    Ok(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    ))
}

/// Parses the fixed positions without a format library, which would take as long as the look-up query itself.
fn from_text(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':'), (19, b'.')];
    if bytes.len() != 26 || separators.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) {
        return None;
    }
    let date = Date::from_calendar_date(
        i32::try_from(decimal(bytes, 0, 4)?).ok()?,
        Month::try_from(u8::try_from(decimal(bytes, 5, 2)?).ok()?).ok()?,
        u8::try_from(decimal(bytes, 8, 2)?).ok()?,
    );
    let time = Time::from_hms_micro(
        u8::try_from(decimal(bytes, 11, 2)?).ok()?,
        u8::try_from(decimal(bytes, 14, 2)?).ok()?,
        u8::try_from(decimal(bytes, 17, 2)?).ok()?,
        decimal(bytes, 20, 6)?,
    );
    let at = OffsetDateTime::new_utc(date.ok()?, time.ok()?);
    Some(Timestamp::from_unix_micros(at.unix_timestamp() * 1_000_000 + i64::from(at.microsecond())))
}

/// Returns the decimal number of `length` digits (at most 6) at `start`.
fn decimal(bytes: &[u8], start: usize, length: usize) -> Option<u32> {
    bytes
        .get(start..start + length)?
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timestamps_of_years_0_to_9999_round_trip_as_text(micros in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            let at = Timestamp::from_unix_micros(micros);
            let text = to_text(at).unwrap();
            prop_assert_eq!(text.len(), 26);
            prop_assert_eq!(from_text(&text), Some(at));
        }
    }

    #[test]
    fn timestamp_text_in_another_form_is_rejected() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T10:00:00.000000",
            "2026-13-01 00:00:00.000000",
            "2026-11-23 10:00:00.00000x",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    #[test]
    fn timestamp_text_has_the_format_of_django() {
        assert_eq!(
            to_text(Timestamp::from_unix_micros(1_700_000_000_000_001)).unwrap(),
            "2023-11-14 22:13:20.000001"
        );
    }
}
