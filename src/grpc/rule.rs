//! Rules as programs read them: the reason and the parameters of a violation (`violation.proto`). Every rule
//! of the domain and of requests is mapped here.

use std::fmt::Display;

use super::{
    page_tokens::InvalidPageToken,
    request_rule::{
        AUTH_TOKENS_MAX, CONNECT_TIMEOUT_DIGITS_MAX, FILTER_TEXT_CHARACTERS_MAX, GRPC_TIMEOUT_DIGITS_MAX,
        JsonRule, PAGE_SIZE_MAX, RequestRule,
    },
};
use crate::{
    callers::NAME_BYTES_MAX,
    domain::{
        EMAIL_OCTETS_MAX, InvalidAuthToken, InvalidClientAddress, InvalidEmail, InvalidPassword,
        InvalidRequestId, InvalidSessionId, InvalidUsername, LOCAL_PART_OCTETS_MAX, PASSWORD_BYTES_MAX,
        PasswordRefusal, PasswordWeakness, STACKED_MARKS_MAX, USERNAME_CHARACTERS_MAX,
    },
    proto::{self, ViolationReason as Reason},
};

/// A reason, and the numbers of the rule by their names.
pub(super) struct ReasonWithNumbers(Reason, Vec<(&'static str, i32)>);

impl From<Reason> for ReasonWithNumbers {
    fn from(reason: Reason) -> Self {
        Self(reason, Vec::new())
    }
}

impl ReasonWithNumbers {
    /// Adds a parameter. A number above the maximum of an `int32` becomes that maximum.
    fn with(mut self, name: &'static str, number: impl TryInto<i32>) -> Self {
        self.1.push((name, number.try_into().unwrap_or(i32::MAX)));
        self
    }
}

/// A rule that a value breaks. Its text is for developers.
pub(super) trait BrokenRule: Display {
    /// Returns the reason and the numbers of the rule, for programs.
    fn for_programs(&self) -> ReasonWithNumbers;
}

/// A field that breaks a rule.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub field: String,
    pub description: String,
    pub reason: Reason,
    parameters: Vec<(&'static str, i32)>,
}

impl Violation {
    pub(super) fn new(field: impl Into<String>, rule: &impl BrokenRule) -> Self {
        let ReasonWithNumbers(reason, parameters) = rule.for_programs();
        Self { field: field.into(), description: rule.to_string(), reason, parameters }
    }

    /// Returns the violation for programs.
    pub(super) fn to_message(&self) -> proto::FieldViolation {
        let parameters = self.parameters.iter().map(|(name, number)| ((*name).to_owned(), *number));
        proto::FieldViolation {
            field: self.field.clone(),
            reason: self.reason.into(),
            parameters: parameters.collect(),
        }
    }
}

impl BrokenRule for InvalidEmail {
    fn for_programs(&self) -> ReasonWithNumbers {
        match self {
            Self::Empty => Reason::EmailEmpty.into(),
            Self::TooLong => {
                ReasonWithNumbers::from(Reason::EmailTooLong).with("max_bytes", EMAIL_OCTETS_MAX)
            }
            Self::LocalPartTooLong => ReasonWithNumbers::from(Reason::EmailLocalPartTooLong)
                .with("max_bytes", LOCAL_PART_OCTETS_MAX),
            Self::Blank => Reason::EmailWhitespace.into(),
            Self::NoAt | Self::Grammar => Reason::EmailMalformed.into(),
            Self::Quoted => Reason::EmailQuoted.into(),
            Self::EncodedWord => Reason::EmailEncodedWord.into(),
            Self::Character => Reason::EmailCharacters.into(),
            Self::Literal => Reason::EmailDomainIsAddress.into(),
            Self::Dotless => Reason::EmailDomainIncomplete.into(),
            Self::Domain => Reason::EmailDomainInvalid.into(),
        }
    }
}

impl BrokenRule for InvalidUsername {
    fn for_programs(&self) -> ReasonWithNumbers {
        match self {
            Self::Empty => Reason::UsernameEmpty.into(),
            Self::TooLong => {
                ReasonWithNumbers::from(Reason::UsernameTooLong).with("max_length", USERNAME_CHARACTERS_MAX)
            }
            Self::At => Reason::UsernameAt.into(),
            Self::Invisible => Reason::UsernameInvisibleCharacters.into(),
            Self::Character => Reason::UsernameCharacters.into(),
            Self::MixedScripts => Reason::UsernameMixedScripts.into(),
            Self::StackedMarks => {
                ReasonWithNumbers::from(Reason::UsernameStackedMarks).with("max_marks", STACKED_MARKS_MAX)
            }
            Self::Link => Reason::UsernameLink.into(),
        }
    }
}

impl BrokenRule for InvalidPassword {
    fn for_programs(&self) -> ReasonWithNumbers {
        match self {
            Self::Empty => Reason::PasswordEmpty.into(),
            Self::TooLong => {
                ReasonWithNumbers::from(Reason::PasswordTooLong).with("max_bytes", PASSWORD_BYTES_MAX)
            }
        }
    }
}

impl BrokenRule for PasswordRefusal {
    fn for_programs(&self) -> ReasonWithNumbers {
        match self {
            Self::Empty => Reason::PasswordEmpty.into(),
            Self::TooShort { min } => {
                ReasonWithNumbers::from(Reason::PasswordTooShort).with("min_length", *min)
            }
            Self::TooLong { max_bytes } => {
                ReasonWithNumbers::from(Reason::PasswordTooLong).with("max_bytes", *max_bytes)
            }
            Self::Guessable { weakness, .. } => match weakness {
                PasswordWeakness::Common => Reason::PasswordCommon,
                PasswordWeakness::KeyboardPattern => Reason::PasswordKeyboardPattern,
                PasswordWeakness::Repeats => Reason::PasswordRepeats,
                PasswordWeakness::Sequence => Reason::PasswordSequence,
                PasswordWeakness::Date => Reason::PasswordDate,
                PasswordWeakness::Word => Reason::PasswordWord,
                PasswordWeakness::Name => Reason::PasswordName,
                PasswordWeakness::Other => Reason::PasswordGuessable,
            }
            .into(),
        }
    }
}

impl BrokenRule for InvalidAuthToken {
    fn for_programs(&self) -> ReasonWithNumbers {
        Reason::AuthTokenMalformed.into()
    }
}

impl BrokenRule for InvalidRequestId {
    fn for_programs(&self) -> ReasonWithNumbers {
        Reason::RequestIdMalformed.into()
    }
}

impl BrokenRule for InvalidSessionId {
    fn for_programs(&self) -> ReasonWithNumbers {
        Reason::SessionIdMalformed.into()
    }
}

impl BrokenRule for InvalidClientAddress {
    fn for_programs(&self) -> ReasonWithNumbers {
        Reason::ClientIpMalformed.into()
    }
}

impl BrokenRule for InvalidPageToken {
    fn for_programs(&self) -> ReasonWithNumbers {
        Reason::PageTokenInvalid.into()
    }
}

impl BrokenRule for RequestRule {
    fn for_programs(&self) -> ReasonWithNumbers {
        match self {
            Self::NotEmpty | Self::Set | Self::KeySet(_) => Reason::Required.into(),
            Self::NewEmail => Reason::EmailUnchanged.into(),
            Self::RequestIdNew => Reason::RequestIdReused.into(),
            Self::MaskOfUsername => Reason::UpdateMaskUnsupported.into(),
            Self::TokenCount(_) => ReasonWithNumbers::from(Reason::AuthTokensCount)
                .with("min_items", 1)
                .with("max_items", AUTH_TOKENS_MAX),
            Self::PageSize => {
                ReasonWithNumbers::from(Reason::PageSizeOutOfRange).with("min", 0).with("max", PAGE_SIZE_MAX)
            }
            Self::Time => Reason::TimestampOutOfRange.into(),
            Self::FilterTextLength => ReasonWithNumbers::from(Reason::FilterTextTooLong)
                .with("max_length", FILTER_TEXT_CHARACTERS_MAX),
            Self::FilterTextCharacters => Reason::FilterTextControlCharacters.into(),
            Self::AuditKind => Reason::AuditKindUnknown.into(),
            Self::CallerName => {
                ReasonWithNumbers::from(Reason::CallerNameInvalid).with("max_bytes", NAME_BYTES_MAX)
            }
            Self::ClientIpOnce => Reason::ClientIpRepeated.into(),
            Self::GrpcTimeout => {
                ReasonWithNumbers::from(Reason::TimeoutMalformed).with("max_digits", GRPC_TIMEOUT_DIGITS_MAX)
            }
            Self::ConnectTimeout => ReasonWithNumbers::from(Reason::TimeoutMalformed)
                .with("max_digits", CONNECT_TIMEOUT_DIGITS_MAX),
            Self::ConnectVersion => Reason::ConnectVersionUnsupported.into(),
            Self::Message => Reason::MessageMalformed.into(),
        }
    }
}

impl BrokenRule for JsonRule {
    fn for_programs(&self) -> ReasonWithNumbers {
        let at = |reason, line: usize, column: usize| {
            ReasonWithNumbers::from(reason).with("line", line).with("column", column)
        };
        match self {
            Self::DistinctNames { line, column } => at(Reason::JsonNameRepeated, *line, *column),
            Self::NotEmpty => at(Reason::JsonMalformed, 1, 0),
            Self::Complete { line, column } | Self::Syntax { line, column } => {
                at(Reason::JsonMalformed, *line, *column)
            }
            Self::Object => Reason::JsonNotObject.into(),
            Self::KnownField { .. } => Reason::JsonFieldUnknown.into(),
            Self::OneForm => Reason::JsonFieldInBothForms.into(),
            Self::OneOf => Reason::JsonOneofRepeated.into(),
            Self::Value(_) => Reason::JsonValueInvalid.into(),
        }
    }
}
