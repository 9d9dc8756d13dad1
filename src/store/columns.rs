//! The two column types on which the engines differ: UUIDs and UTC time, as one SQL type each.
//!
//! PostgreSQL gets its own `uuid` and `timestamptz` in their binary form; SQLite gets text (`CHAR(36)`, lower case with
//! hyphens, and `YYYY-MM-DD HH:MM:SS.ffffff`), which sorts as the values do and which Django reads.

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

/// A UUID: PostgreSQL's `uuid`, text of 36 characters on SQLite.
#[derive(SqlType, QueryId, Clone, Copy, Debug)]
#[diesel(postgres_type(oid = 2950, array_oid = 2951))]
#[diesel(sqlite_type(name = "Text"))]
pub struct SqlUuid;

/// A moment in UTC, to the microsecond: PostgreSQL's `timestamptz`, text of 26 characters on SQLite.
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

/// 2000-01-01 00:00:00 UTC, from which PostgreSQL counts, in microseconds since the Unix epoch.
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
            .ok_or_else(|| "a time that is not YYYY-MM-DD HH:MM:SS.ffffff".into())
    }
}

/// `YYYY-MM-DD HH:MM:SS.ffffff`
pub(super) fn to_text(at: Timestamp) -> Result<String, time::error::ComponentRange> {
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

/// Reads the fixed places by hand: a parser that tries formats costs as much as the look-up itself.
fn from_text(text: &str) -> Option<Timestamp> {
    let places = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':'), (19, b'.')];
    if places.len() != 26 || separators.iter().any(|&(at, byte)| places.get(at) != Some(&byte)) {
        return None;
    }
    let date = Date::from_calendar_date(
        i32::try_from(number(places, 0, 4)?).ok()?,
        Month::try_from(u8::try_from(number(places, 5, 2)?).ok()?).ok()?,
        u8::try_from(number(places, 8, 2)?).ok()?,
    );
    let time = Time::from_hms_micro(
        u8::try_from(number(places, 11, 2)?).ok()?,
        u8::try_from(number(places, 14, 2)?).ok()?,
        u8::try_from(number(places, 17, 2)?).ok()?,
        number(places, 20, 6)?,
    );
    let at = OffsetDateTime::new_utc(date.ok()?, time.ok()?);
    Some(Timestamp::from_unix_micros(at.unix_timestamp() * 1_000_000 + i64::from(at.microsecond())))
}

/// The decimal number of `length` digits (at most 6) at `start`.
fn number(places: &[u8], start: usize, length: usize) -> Option<u32> {
    places
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
        fn every_time_from_year_0_to_9999_survives_the_text(micros in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            let at = Timestamp::from_unix_micros(micros);
            let text = to_text(at).unwrap();
            prop_assert_eq!(text.len(), 26);
            prop_assert_eq!(from_text(&text), Some(at));
        }
    }

    #[test]
    fn a_time_in_another_form_is_refused() {
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
    fn text_is_what_django_reads() {
        assert_eq!(
            to_text(Timestamp::from_unix_micros(1_700_000_000_000_001)).unwrap(),
            "2023-11-14 22:13:20.000001"
        );
    }
}
