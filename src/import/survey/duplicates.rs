//! The rows of the survey that share a value with another row.

use diesel::{
    OptionalExtension, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Text},
};

use super::{super::candidate::Candidate, Survey};
use crate::database::DatabaseError;

/// A field in which two rows may have the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurveyField {
    /// The `auth_token`.
    AuthToken,
    /// The email address.
    Email,
    /// The username, character by character.
    Username,
    /// The username key.
    UsernameKey,
}

impl SurveyField {
    const fn column(self) -> &'static str {
        match self {
            Self::AuthToken => "auth_token",
            Self::Email => "email",
            Self::Username => "username",
            Self::UsernameKey => "username_key",
        }
    }

    /// Returns the value of a row as the survey stores it.
    fn value_of(self, candidate: &Candidate) -> String {
        match self {
            Self::AuthToken => candidate.auth_token.to_string(),
            Self::Email => candidate.email.as_str().to_owned(),
            Self::Username => candidate.username.clone(),
            Self::UsernameKey => candidate.username_key.clone().unwrap_or_default(),
        }
    }
}

/// An iteration over the new and changed rows that share a value with another such row.
pub struct Duplicates {
    field: SurveyField,
    verified_first: bool,
    /// The first row with the current value.
    keeper: Option<Candidate>,
    /// The row that was visited last.
    last: Option<Candidate>,
}

impl Duplicates {
    /// Starts the iteration. Of the rows with the same value, the one with the smallest id comes first.
    #[must_use]
    pub const fn by_id(field: SurveyField) -> Self {
        Self { field, verified_first: false, keeper: None, last: None }
    }

    /// Starts the iteration. Of the rows with the same value, verified ones come first, then the one with the
    /// smaller id.
    #[must_use]
    pub fn verified_first(field: SurveyField) -> Self {
        Self { verified_first: true, ..Self::by_id(field) }
    }

    /// Returns the first row with a value, and the next row that has the same value. A decision about a row
    /// that was already returned does not change the iteration.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn next(&mut self, survey: &mut Survey) -> Result<Option<(Candidate, Candidate)>, DatabaseError> {
        while let Some(candidate) =
            survey.next_duplicate(self.field, self.verified_first, self.last.as_ref())?
        {
            self.last = Some(candidate.clone());
            let value = self.field.value_of(&candidate);
            match self.keeper.as_ref().filter(|keeper| self.field.value_of(keeper) == value) {
                Some(keeper) => return Ok(Some((keeper.clone(), candidate))),
                None => self.keeper = Some(candidate),
            }
        }
        Ok(None)
    }
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

impl Survey {
    /// Returns the next new or changed row that shares a value with another such row, in the order that
    /// [`Duplicates`] describes. `after` is the row that was returned before.
    fn next_duplicate(
        &mut self,
        field: SurveyField,
        verified_first: bool,
        after: Option<&Candidate>,
    ) -> Result<Option<Candidate>, DatabaseError> {
        let column = field.column();
        // An index has this order, so that all calls together read the rows once.
        let (order, values) = if verified_first {
            (format!("{column}, unverified, id"), "(?1, ?2, ?3)")
        } else {
            (format!("{column}, id"), "(?1, ?3)")
        };
        let eligible = "state IN ('new', 'changed')";
        let after_condition = if after.is_some() {
            format!("AND ({order}) > {values} AND ?2 >= 0")
        } else {
            "AND ?1 = '' AND ?2 = 0 AND ?3 = 0".to_owned()
        };
        let query = format!(
            "SELECT id FROM candidate c WHERE {eligible} AND {column} IS NOT NULL {after_condition} AND EXISTS (SELECT 1 FROM candidate other \
             WHERE other.{column} = c.{column} AND other.id <> c.id AND other.{eligible}) ORDER BY {order} LIMIT 1"
        );
        let value = after.map_or_else(String::new, |after| field.value_of(after));
        let query = sql_query(query)
            .bind::<Text, _>(value)
            .bind::<BigInt, _>(after.map_or(0, |after| i64::from(!after.is_verified)))
            .bind::<BigInt, _>(after.map_or(0, |after| after.id));
        match query.get_result::<IdRow>(&mut self.connection).optional()? {
            Some(row) => self.find(row.id),
            None => Ok(None),
        }
    }
}
