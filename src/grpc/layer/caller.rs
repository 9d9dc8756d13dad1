//! Authentication and authorization of the caller, before the request body is read.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, header};
use tonic::{Code, Status, body::Body};

use super::super::{
    fields::Fields,
    status::{error_status, retryable_status},
};
use crate::{
    callers::{CallSlot, Caller, CallerGate, Requester, ServiceToken},
    domain::{CallNote, ClientAddress, ClientAgent},
    proto::ErrorReason,
    server::Peer,
};

/// The header with the end user's IP address. It is ignored unless the caller has the right `tells-client`.
const CLIENT_IP: &str = "kairos-client-ip";

/// The header with the end user's program. It is ignored unless the caller has the right `tells-client`.
const CLIENT_AGENT: &str = "kairos-client-agent";

/// The retry delay for a caller with too many calls in flight: most calls end within milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Authenticates the caller by its service token or its client certificate.
pub(super) fn identify(
    gate: &CallerGate,
    request: &Request<Body>,
    peer: &Peer,
) -> Result<Arc<Caller>, Status> {
    let token = service_token(request.headers())?;
    gate.identify(token.as_ref(), &peer.names).ok_or_else(|| match (token, &*peer.names) {
        (None, [_, ..]) => unknown_certificate(&peer.names),
        _ => unknown_caller(),
    })
}

/// Checks that the caller may call the method and has a call slot left. Returns the slot.
pub(super) fn authorize(caller: &Arc<Caller>, request: &Request<Body>) -> Result<CallSlot, Status> {
    if !caller.may_call(request.uri().path()) {
        let message = format!("the caller {} may not call this method", caller.name());
        return Err(error_status(Code::PermissionDenied, ErrorReason::CallerNotAllowed, &message));
    }
    let Some(slot) = caller.try_begin_call() else {
        let message = format!("the caller {} has too many calls in flight: try again later", caller.name());
        let reason = ErrorReason::Overloaded;
        return Err(retryable_status(Code::ResourceExhausted, reason, &message, RETRY_AFTER));
    };
    Ok(slot)
}

/// Returns the source of the request. The end user's program is read only for `note`d calls: a look-up has no
/// use for it.
///
/// # Errors
/// `INVALID_FIELDS` for a malformed address of the end user.
pub(super) fn requester(
    caller: Arc<Caller>,
    request: &Request<Body>,
    peer: &Peer,
    note: Option<CallNote>,
) -> Result<Requester, Status> {
    let is_told = caller.tells_client();
    let client = if is_told { client_address(request.headers())? } else { None };
    let agent = if is_told && note.is_some() { client_agent(request.headers()) } else { None };
    Ok(Requester { caller, client, agent, peer: Some(peer.ip()), note: note.unwrap_or_default() })
}

fn client_agent(headers: &HeaderMap) -> Option<ClientAgent> {
    headers.get(CLIENT_AGENT).and_then(|agent| ClientAgent::from_bytes_lossy(agent.as_bytes()))
}

fn client_address(headers: &HeaderMap) -> Result<Option<ClientAddress>, Status> {
    let mut values = headers.get_all(CLIENT_IP).iter();
    let Some(address) = values.next() else { return Ok(None) };
    let mut fields = Fields::default();
    if values.next().is_some() {
        fields.reject(CLIENT_IP, &"must occur at most once");
        return Err(fields.into_status());
    }
    match fields.check(CLIENT_IP, ClientAddress::parse(address.to_str().unwrap_or_default())) {
        Some(address) => Ok(Some(address)),
        None => Err(fields.into_status()),
    }
}

fn unknown_caller() -> Status {
    let message = "the caller is unknown: send a service token as `authorization: Bearer kst_...` or use a client certificate";
    error_status(Code::Unauthenticated, ErrorReason::CallerUnknown, message)
}

/// Refuses a verified client certificate that authenticates no caller. The client knows its names, and its
/// operator needs them for the callers file.
fn unknown_certificate(names: &[String]) -> Status {
    const NAMES_MAX: usize = 5;
    const CHARACTERS_MAX: usize = 100;
    let shown =
        names.iter().take(NAMES_MAX).map(|name| name.chars().take(CHARACTERS_MAX).collect::<String>());
    let message = format!(
        "the caller is unknown: no entry of the callers file has a name of its client certificate ({})",
        shown.collect::<Vec<_>>().join(", ")
    );
    error_status(Code::Unauthenticated, ErrorReason::CallerUnknown, &message)
}

/// Returns the service token among the `authorization` values, if there is one. More than one is rejected,
/// because it would be unclear which caller is meant.
fn service_token(headers: &HeaderMap) -> Result<Option<ServiceToken>, Status> {
    let credentials = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = credentials.filter_map(ServiceToken::from_authorization);
    let token = tokens.next();
    if tokens.next().is_some() { Err(unknown_caller()) } else { Ok(token) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_at_most_one_service_token() {
        let (one, other) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let bearer = |token: &ServiceToken| format!("Bearer {}", token.expose());
        let found = |credentials: &[String]| {
            let mut headers = HeaderMap::new();
            for value in credentials {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            service_token(&headers).map_err(|status| status.code())
        };
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[bearer(&one)]), Ok(Some(one.clone())));
        // A user's access token may be sent beside it.
        assert_eq!(found(&["Bearer eyJhbGciOi".to_owned(), bearer(&one)]), Ok(Some(one.clone())));
        assert_eq!(found(&[bearer(&one), bearer(&other)]), Err(Code::Unauthenticated));
        assert_eq!(found(&[bearer(&one), bearer(&one)]), Err(Code::Unauthenticated));
    }
}
