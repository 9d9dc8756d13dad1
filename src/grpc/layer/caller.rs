//! Authentication and authorization of the caller, before the request body is read.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Request};
use tonic::{Code, Status, body::Body};

use super::{
    super::{
        credentials::service_token,
        fields::Fields,
        request_rule::RequestRule,
        status::{error_status, retryable_status},
    },
    limits::PathClass,
};
use crate::{
    callers::{CallSlot, Caller, CallerGate, Requester},
    domain::{CallNote, ClientAddress, ClientAgent},
    proto::ErrorReason,
    server::Peer,
};

/// The header with the end user's IP address. It is ignored unless the caller has the right `tells-client`.
const CLIENT_IP: HeaderName = HeaderName::from_static("kairos-client-ip");

/// The header with the end user's program. It is ignored unless the caller has the right `tells-client`.
const CLIENT_AGENT: HeaderName = HeaderName::from_static("kairos-client-agent");

/// The message to a request whose service token belongs to no caller.
const UNKNOWN_TOKEN: &str =
    "the service token is not that of a caller: no entry of the callers file has its hash";

/// The message to a request with neither a service token nor a client certificate.
const UNKNOWN_CALLER: &str = "the caller is unknown: send a service token as `kairos-caller-token: kst_...` or use a client certificate";

/// The retry delay for a caller with too many calls in flight: most calls end within milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Authenticates the caller by its service token or its client certificate.
pub(super) fn identify(
    gate: &CallerGate,
    request: &Request<Body>,
    peer: &Peer,
) -> Result<Arc<Caller>, Status> {
    let token = service_token(request.headers()).map_err(|error| refused(&error.to_string()))?;
    gate.identify(token.as_ref(), &peer.names).ok_or_else(|| match (token, &*peer.names) {
        (None, [_, ..]) => unknown_certificate(&peer.names),
        (Some(_), _) => refused(UNKNOWN_TOKEN),
        _ => refused(UNKNOWN_CALLER),
    })
}

/// Checks that the caller may call the method and has a call slot left. Returns the slot.
pub(super) fn authorize(caller: &Arc<Caller>, request: &Request<Body>) -> Result<CallSlot, Status> {
    if !caller.may_call(request.uri().path()) {
        let message = format!(
            "the caller {} may not call {}: `methods` of its entry does not allow it",
            caller.name(),
            method_name(request.uri().path())
        );
        return Err(error_status(Code::PermissionDenied, ErrorReason::CallerNotAllowed, &message));
    }
    let Some(slot) = caller.try_begin_call() else {
        let message = format!("the caller {} has too many calls in flight: try again later", caller.name());
        let reason = ErrorReason::Overloaded;
        return Err(retryable_status(Code::ResourceExhausted, reason, &message, RETRY_AFTER));
    };
    Ok(slot)
}

/// Returns the method as the callers file names it: `Service/Method`. A path outside of the packages of the
/// API, health and reflection is not repeated.
fn method_name(path: &str) -> &str {
    match PathClass::of(path) {
        PathClass::Unknown => "this method",
        _ => path.rsplit_once('.').map_or(path, |(_, method)| method),
    }
}

/// Returns the source of the request. The end user's program is read only if there is a `note`: a look-up has
/// none, and does not use the program.
///
/// # Errors
/// `INVALID_FIELDS` for a malformed address of the end user.
pub(super) fn requester(
    caller: Arc<Caller>,
    request: &Request<Body>,
    peer: &Peer,
    note: Option<CallNote>,
) -> Result<Requester, Status> {
    let tells_client = caller.tells_client();
    let client = if tells_client { client_address(request.headers())? } else { None };
    let agent = if tells_client && note.is_some() { client_agent(request.headers()) } else { None };
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
        fields.reject(CLIENT_IP.as_str(), &RequestRule::ClientIpOnce);
        return Err(fields.into_status());
    }
    match fields.check(CLIENT_IP.as_str(), ClientAddress::parse(address.to_str().unwrap_or_default())) {
        Some(address) => Ok(Some(address)),
        None => Err(fields.into_status()),
    }
}

/// Returns the status of a request that authenticates no caller.
fn refused(message: &str) -> Status {
    error_status(Code::Unauthenticated, ErrorReason::CallerUnknown, message)
}

/// Returns the status for a verified client certificate that authenticates no caller. It repeats the names in
/// the certificate, because the operator of the client needs them for the callers file.
fn unknown_certificate(names: &[String]) -> Status {
    // The message is sent in a header, and clients limit all headers together to 8 KiB.
    const NAMES_MAX: usize = 5;
    const CHARACTERS_MAX: usize = 100;
    let shown =
        names.iter().take(NAMES_MAX).map(|name| name.chars().take(CHARACTERS_MAX).collect::<String>());
    let message = format!(
        "the caller is unknown: no entry of the callers file has a name of its client certificate ({})",
        shown.collect::<Vec<_>>().join(", ")
    );
    refused(&message)
}
