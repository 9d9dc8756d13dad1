//! The handler of `AdminService` for the audit trail.

use std::mem;

use tonic::Status;

use super::{
    convert,
    fields::Fields,
    page::{Page, PageRequest, optional_timestamp},
    page_tokens::PageTokens,
    request_rule::RequestRule,
    status::from_account,
};
use crate::{
    accounts::Administration,
    callers::NAME_BYTES_MAX,
    domain::{AuditKind, AuthToken, Origin},
    proto,
    store::{AuditFilter, EventPosition, RecordedEvent},
};

impl PageRequest for proto::ListAuditEventsRequest {
    const LIST: &'static str = "audit events";

    fn take_page(&mut self) -> (i32, String) {
        (mem::take(&mut self.page_size), mem::take(&mut self.page_token))
    }
}

pub(super) async fn list_audit_events(
    administration: &Administration,
    page_tokens: &PageTokens,
    mut request: proto::ListAuditEventsRequest,
    origin: &Origin,
) -> Result<proto::ListAuditEventsResponse, Status> {
    let mut fields = Fields::default();
    let page = Page::parse(&mut fields, page_tokens, &mut request);
    let user = match request.auth_token.as_str() {
        "" => None,
        text => fields.check("auth_token", AuthToken::parse(text)),
    };
    if let Some(user) = user {
        origin.note.set_user(user);
    }
    let kinds = request.kinds.iter().enumerate();
    let kinds =
        kinds.filter_map(|(index, name)| fields.check(&format!("kinds[{index}]"), kind(name))).collect();
    if request.caller.len() > NAME_BYTES_MAX || request.caller.chars().any(char::is_control) {
        fields.reject("caller", &RequestRule::CallerName);
    }
    let since = optional_timestamp(&mut fields, "since", request.since);
    let until = optional_timestamp(&mut fields, "until", request.until);
    let Some(page) = page.filter(|_| fields.are_valid()) else { return Err(fields.into_status()) };
    let caller = (!request.caller.is_empty()).then_some(request.caller);
    let filter = AuditFilter { user, caller, kinds, since, until };
    let after = page.after.map(EventPosition::from_numbers);

    let mut events =
        administration.list_audit_events(filter, after, page.query_limit()).await.map_err(from_account)?;

    let next_page_token = page.next_page_token(page_tokens, &mut events, |last| last.position().as_numbers());
    Ok(proto::ListAuditEventsResponse { events: events.into_iter().map(event).collect(), next_page_token })
}

/// Parses the name of a kind of event.
fn kind(name: &str) -> Result<AuditKind, RequestRule> {
    AuditKind::parse(name).ok_or(RequestRule::AuditKind)
}

/// Converts an event; an absent value is an empty string.
fn event(event: RecordedEvent) -> proto::AuditEvent {
    proto::AuditEvent {
        at: Some(convert::timestamp(event.at)),
        kind: event.kind,
        reason: event.reason.unwrap_or_default(),
        auth_token: event.user.map(|user| user.to_string()).unwrap_or_default(),
        resource: event.resource.unwrap_or_default(),
        caller: event.caller,
        peer_ip: event.peer.unwrap_or_default(),
        client_ip: event.client.unwrap_or_default(),
        client_agent: event.agent.unwrap_or_default(),
        request_id: event.request_id.map(|id| id.to_string()).unwrap_or_default(),
        count: event.count,
    }
}
