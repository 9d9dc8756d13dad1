//! Generates `docs/errors.md` from the comments in `error_reason.proto` and `violation.proto`. A test
//! compares the file with them.

use std::{fmt::Write, fs, path::Path};

use kairos_identity::proto;
use prost::Message;
use prost_types::FileDescriptorSet;

/// The gRPC codes of the API with their HTTP status (connectrpc.com/docs/protocol, "Error codes").
const HTTP_STATUS: [(&str, u16); 10] = [
    ("INVALID_ARGUMENT", 400),
    ("FAILED_PRECONDITION", 400),
    ("UNAUTHENTICATED", 401),
    ("PERMISSION_DENIED", 403),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("RESOURCE_EXHAUSTED", 429),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DEADLINE_EXCEEDED", 504),
];

/// The path of the values of the first enum in a `SourceCodeInfo` (`descriptor.proto`): the fields
/// `enum_type` and `value`.
const VALUES_OF_FIRST_ENUM: [i32; 3] = [5, 0, 2];

/// A value of `ErrorReason` with its comment.
struct Reason {
    name: String,
    comment: String,
}

/// A value of `ViolationReason` with its comment.
pub struct ViolatedRule {
    /// The name without its prefix, as clients see it.
    pub name: String,
    comment: String,
}

impl ViolatedRule {
    /// Returns the rule in words.
    fn description(&self) -> String {
        let description = self.comment.split("\n\n").next().unwrap();
        description.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Returns the text after `- Parameters: ` in the comment.
    fn parameters_text(&self) -> &str {
        let (_, text) = self.comment.split_once("- Parameters: ").unwrap_or_else(|| panic!("{}", self.name));
        text.trim().trim_end_matches('.')
    }

    /// Returns the names of the parameters.
    pub fn parameters(&self) -> Vec<String> {
        self.parameters_text().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
}

/// Returns the reasons of violations, in the order of the `.proto`.
pub fn violation_reasons() -> Vec<ViolatedRule> {
    let values = values_with_comments("/violation.proto", "VIOLATION_REASON_");
    values.into_iter().map(|(name, comment)| ViolatedRule { name, comment }).collect()
}

/// Returns the reasons that the service sends, in the order of the `.proto`.
fn reasons() -> Vec<Reason> {
    let values = values_with_comments("/error_reason.proto", "ERROR_REASON_");
    values.into_iter().map(|(name, comment)| Reason { name, comment }).collect()
}

/// Returns the values of the first enum of a file but the first one, without their prefix, each with its
/// comment.
fn values_with_comments(file_name: &str, prefix: &str) -> Vec<(String, String)> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let file = set.file.into_iter().find(|file| file.name().ends_with(file_name)).unwrap();
    let locations = file.source_code_info.as_ref().unwrap();
    let values = file.enum_type[0].value.iter().enumerate().skip(1);
    values
        .map(|(number, value)| {
            let path = [&VALUES_OF_FIRST_ENUM[..], &[i32::try_from(number).unwrap()]].concat();
            let location = locations.location.iter().find(|location| location.path == path).unwrap();
            let name = value.name().strip_prefix(prefix).unwrap().to_owned();
            (name, location.leading_comments().to_owned())
        })
        .collect()
}

impl Reason {
    /// Returns the gRPC code with its HTTP status, and the rest of the description.
    fn code_and_description(&self) -> (&'static str, u16, String) {
        let description = self.comment.split("\n\n").next().unwrap();
        let text = description.split_whitespace().collect::<Vec<_>>().join(" ");
        let (code, text) = text.split_once(". ").unwrap();
        let known = HTTP_STATUS.iter().find(|(name, _)| *name == code);
        let (code, status) = *known.unwrap_or_else(|| panic!("{}: {code} is no gRPC code", self.name));
        (code, status, text.to_owned())
    }

    /// Returns the text after `- {label}: ` in the comment.
    fn line(&self, label: &str) -> String {
        let text = self.comment.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, rest) =
            text.split_once(&format!("- {label}: ")).unwrap_or_else(|| panic!("{}: no {label}", self.name));
        rest.split(". -").next().unwrap().trim_end_matches('.').to_owned()
    }
}

/// Returns the text of `docs/errors.md`.
fn reference_page() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         The status details of an error contain a `google.rpc.ErrorInfo`. Match on its `reason`. The message\n\
         is meant for developers and may change. `IdentityService` lists the few errors without an\n\
         `ErrorInfo`.\n\n\
         This page is generated from `proto/kairos/identity/v1/error_reason.proto` and `violation.proto` by\n\
         `UPDATE_DOCS=1 cargo test --test it error_reference`.\n\n\
         | reason | gRPC code | HTTP status | retry the same call | show to the user |\n|---|---|---|---|---|\n",
    );
    let reasons = reasons();
    for reason in &reasons {
        let (code, status, _) = reason.code_and_description();
        let (name, retry, shown) = (&reason.name, reason.line("Retry"), reason.line("Show to the user"));
        let _ = writeln!(page, "| `{name}` | `{code}` | {status} | {retry} | {shown} |");
    }
    for reason in &reasons {
        let (_, _, description) = reason.code_and_description();
        let action = reason.line("Action");
        let _ = write!(page, "\n## `{}`\n\n{description}\n\nAction of the caller: {action}.\n", reason.name);
    }
    page + &violations_section()
}

/// Returns the section about the violations of fields.
fn violations_section() -> String {
    let mut section = String::from(
        "\n## Violations of fields\n\n\
         An `INVALID_FIELDS` lists each field with the rule that it breaks, for a form in any language:\n\n\
         - `google.rpc.BadRequest`: the `field`, the `reason` of the table, and a `description` in English, which\n  \
         may change. A client of `google.rpc` needs nothing else.\n\
         - `kairos.identity.v1.InvalidFields`: the same violations in the same order, with the reason as an enum\n  \
         and the numbers of the rule, such as `min_length: 8`. `google.rpc` has no place for the numbers of one\n  \
         field. In Connect's JSON, it is `debug` of the detail with this `type`.\n\n\
         Show the `description` for a reason that you do not know: later versions may add some.\n\n\
         | reason | the rule that the field breaks | parameters |\n|---|---|---|\n",
    );
    for rule in violation_reasons() {
        let (name, description, parameters) = (&rule.name, rule.description(), rule.parameters_text());
        let _ = writeln!(section, "| `{name}` | {description} | {parameters} |");
    }
    section
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "an environment variable decides whether the test writes the file"
)]
fn the_page_of_errors_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = reference_page();
    if std::env::var("UPDATE_DOCS").is_ok() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/errors.md is out of date: run `UPDATE_DOCS=1 cargo test --test it error_reference`"
    );
}
