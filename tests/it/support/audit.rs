//! The audit trail, as `kairos-identity audit` prints it.

use std::time::Duration;

use super::{
    program::{stderr, stdout},
    server::TestServer,
};

/// How long to wait for audit events. The service records refusals once a second.
pub const RECORDED_LIMIT: Duration = Duration::from_secs(15);

/// A line of `kairos-identity audit`. A field that is `-` is not known.
#[derive(Debug, Clone)]
pub struct AuditLine {
    /// The whole line.
    pub text: String,
    pub kind: String,
    /// `OK`, or the reason of the refusal.
    pub outcome: String,
    /// The user's `auth_token`.
    pub user: String,
    pub caller: String,
    pub address: String,
    /// The number of equal events, 1 if the line does not state it.
    pub count: usize,
    pub resource: Option<String>,
    pub agent: Option<String>,
}

impl AuditLine {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_at, kind, outcome, user, caller, address, others @ ..] = &fields[..] else {
            panic!("too few fields: {line:?}");
        };
        let other = |name: &str| {
            let value = others.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned)
        };
        Self {
            text: line.to_owned(),
            kind: (*kind).to_owned(),
            outcome: (*outcome).to_owned(),
            user: (*user).to_owned(),
            caller: (*caller).to_owned(),
            address: (*address).to_owned(),
            count: other("count").map_or(1, |count| count.parse().unwrap()),
            resource: other("resource"),
            agent: other("agent"),
        }
    }

    /// Returns `KIND OUTCOME`.
    pub fn decision(&self) -> String {
        format!("{} {}", self.kind, self.outcome)
    }
}

/// Runs `kairos-identity audit` with these arguments and returns its lines, without the events of earlier
/// runs.
pub fn audit(server: &TestServer, arguments: &[&str]) -> Vec<AuditLine> {
    let mut lines = audit_with_own_reads(server, arguments);
    lines.retain(|line| !(line.kind == "sensitive_read" && line.caller == "command-line"));
    lines
}

/// Like [`audit`], with the events of earlier runs.
pub fn audit_with_own_reads(server: &TestServer, arguments: &[&str]) -> Vec<AuditLine> {
    let output = server.command(&[&["audit"], arguments].concat()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).lines().map(AuditLine::parse).collect()
}

/// Returns the number of events in these lines.
pub fn count(lines: &[AuditLine]) -> usize {
    lines.iter().map(|line| line.count).sum()
}
