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
pub(super) struct Broken(Reason, Vec<(&'static str, i32)>);

impl From<Reason> for Broken {
    fn from(reason: Reason) -> Self {
        Self(reason, Vec::new())
    }
}

impl Broken {
    /// Adds a parameter. A number above the maximum of an `int32` becomes that maximum.
    fn with(mut self, name: &'static str, number: impl TryInto<i32>) -> Self {
        self.1.push((name, number.try_into().unwrap_or(i32::MAX)));
        self
    }
}

/// A broken rule: its text is for developers, the rest for programs.
pub(super) trait Rule: Display {
    /// Returns the reason and the parameters.
    fn broken(&self) -> Broken;
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
    pub(super) fn new(field: impl Into<String>, rule: &impl Rule) -> Self {
        let Broken(reason, parameters) = rule.broken();
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

impl Rule for InvalidEmail {
    fn broken(&self) -> Broken {
        match self {
            Self::Empty => Reason::EmailEmpty.into(),
            Self::TooLong => Broken::from(Reason::EmailTooLong).with("max_bytes", EMAIL_OCTETS_MAX),
            Self::LocalPartTooLong => {
                Broken::from(Reason::EmailLocalPartTooLong).with("max_bytes", LOCAL_PART_OCTETS_MAX)
            }
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

impl Rule for InvalidUsername {
    fn broken(&self) -> Broken {
        match self {
            Self::Empty => Reason::UsernameEmpty.into(),
            Self::TooLong => {
                Broken::from(Reason::UsernameTooLong).with("max_length", USERNAME_CHARACTERS_MAX)
            }
            Self::At => Reason::UsernameAt.into(),
            Self::Invisible => Reason::UsernameInvisibleCharacters.into(),
            Self::Character => Reason::UsernameCharacters.into(),
            Self::MixedScripts => Reason::UsernameMixedScripts.into(),
            Self::StackedMarks => {
                Broken::from(Reason::UsernameStackedMarks).with("max_marks", STACKED_MARKS_MAX)
            }
            Self::Link => Reason::UsernameLink.into(),
        }
    }
}

impl Rule for InvalidPassword {
    fn broken(&self) -> Broken {
        match self {
            Self::Empty => Reason::PasswordEmpty.into(),
            Self::TooLong => Broken::from(Reason::PasswordTooLong).with("max_bytes", PASSWORD_BYTES_MAX),
        }
    }
}

impl Rule for PasswordRefusal {
    fn broken(&self) -> Broken {
        match self {
            Self::Empty => Reason::PasswordEmpty.into(),
            Self::TooShort { min } => Broken::from(Reason::PasswordTooShort).with("min_length", *min),
            Self::TooLong { max_bytes } => {
                Broken::from(Reason::PasswordTooLong).with("max_bytes", *max_bytes)
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

impl Rule for InvalidAuthToken {
    fn broken(&self) -> Broken {
        Reason::AuthTokenMalformed.into()
    }
}

impl Rule for InvalidRequestId {
    fn broken(&self) -> Broken {
        Reason::RequestIdMalformed.into()
    }
}

impl Rule for InvalidSessionId {
    fn broken(&self) -> Broken {
        Reason::SessionIdMalformed.into()
    }
}

impl Rule for InvalidClientAddress {
    fn broken(&self) -> Broken {
        Reason::ClientIpMalformed.into()
    }
}

impl Rule for InvalidPageToken {
    fn broken(&self) -> Broken {
        Reason::PageTokenInvalid.into()
    }
}

impl Rule for RequestRule {
    fn broken(&self) -> Broken {
        match self {
            Self::NotEmpty | Self::Set | Self::KeySet(_) => Reason::Required.into(),
            Self::NewEmail => Reason::EmailUnchanged.into(),
            Self::RequestIdNew => Reason::RequestIdReused.into(),
            Self::MaskOfUsername => Reason::UpdateMaskUnsupported.into(),
            Self::TokenCount(_) => {
                Broken::from(Reason::AuthTokensCount).with("min_items", 1).with("max_items", AUTH_TOKENS_MAX)
            }
            Self::PageSize => {
                Broken::from(Reason::PageSizeOutOfRange).with("min", 0).with("max", PAGE_SIZE_MAX)
            }
            Self::Time => Reason::TimestampOutOfRange.into(),
            Self::FilterTextLength => {
                Broken::from(Reason::FilterTextTooLong).with("max_length", FILTER_TEXT_CHARACTERS_MAX)
            }
            Self::FilterTextCharacters => Reason::FilterTextControlCharacters.into(),
            Self::AuditKind => Reason::AuditKindUnknown.into(),
            Self::CallerName => Broken::from(Reason::CallerNameInvalid).with("max_bytes", NAME_BYTES_MAX),
            Self::ClientIpOnce => Reason::ClientIpRepeated.into(),
            Self::GrpcTimeout => {
                Broken::from(Reason::TimeoutMalformed).with("max_digits", GRPC_TIMEOUT_DIGITS_MAX)
            }
            Self::ConnectTimeout => {
                Broken::from(Reason::TimeoutMalformed).with("max_digits", CONNECT_TIMEOUT_DIGITS_MAX)
            }
            Self::ConnectVersion => Reason::ConnectVersionUnsupported.into(),
        }
    }
}

impl Rule for JsonRule {
    fn broken(&self) -> Broken {
        let at = |reason, line: usize, column: usize| {
            Broken::from(reason).with("line", line).with("column", column)
        };
        match self {
            Self::DistinctNames { line, column } => at(Reason::JsonNameRepeated, *line, *column),
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
