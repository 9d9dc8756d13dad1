//! Who calls, and whether they may: before anything of the request is read.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, header};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;

use super::super::{
    fields::Fields,
    status::{busy, name, refusal},
};
use crate::{
    callers::{Caller, CallerGate, Ongoing, Requester, ServiceToken},
    domain::{AuditKind, ClientAddress},
    proto::ErrorReason,
    server::Peer,
};

/// What load balancers ask without a token; it tells nothing of anybody.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The end user's address; of a caller that may not tell it, it is not read.
const CLIENT_IP: &str = "kairos-client-ip";

/// When it is worth trying again for a caller that has too many calls under way: most end within milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who makes a request.
pub(super) fn identify(
    gate: &CallerGate,
    request: &Request<Body>,
    peer: &Peer,
) -> Result<Arc<Caller>, Status> {
    if request.uri().path().starts_with(HEALTH) {
        return Ok(Caller::nobody());
    }
    gate.identify(service_token(request.headers())?.as_ref(), &peer.names).ok_or_else(unknown)
}

/// For whom the caller asks, and its place among its calls, if it may ask.
pub(super) fn authorize(
    caller: Arc<Caller>,
    request: &Request<Body>,
    peer: &Peer,
) -> Result<(Requester, Ongoing), Status> {
    if !caller.may_call(request.uri().path()) {
        let message = format!("the caller {} may not call this method", caller.name());
        return Err(refusal(Code::PermissionDenied, ErrorReason::CallerNotAllowed, &message));
    }
    let Some(ongoing) = caller.begin() else {
        let message = format!("the caller {} has too many calls under way", caller.name());
        return Err(busy(Code::ResourceExhausted, ErrorReason::Overloaded, &message, RETRY_AFTER));
    };
    let client = if caller.tells_client() { client_address(request.headers())? } else { None };
    Ok((Requester { caller, client, peer: Some(peer.address.ip().to_canonical()) }, ongoing))
}

/// What the trail has of a refusal: a caller that may not, or too many calls; nothing of a request that is faulty.
pub(super) fn audited(refusal: &Status) -> Option<(AuditKind, &'static str)> {
    let reason = refusal.get_details_error_info()?.reason;
    let kinds = [
        (ErrorReason::CallerUnknown, AuditKind::AuthzFail),
        (ErrorReason::CallerNotAllowed, AuditKind::AuthzFail),
        (ErrorReason::Overloaded, AuditKind::ExcessRateLimitExceeded),
    ];
    kinds.into_iter().map(|(of, kind)| (kind, name(of))).find(|(_, name)| *name == reason)
}

fn client_address(headers: &HeaderMap) -> Result<Option<ClientAddress>, Status> {
    let mut told = headers.get_all(CLIENT_IP).iter();
    let Some(address) = told.next() else { return Ok(None) };
    let mut fields = Fields::default();
    if told.next().is_some() {
        fields.refuse(CLIENT_IP, &"must be there once");
        return Err(fields.into_status());
    }
    match fields.take(CLIENT_IP, ClientAddress::parse(address.to_str().unwrap_or_default())) {
        Some(address) => Ok(Some(address)),
        None => Err(fields.into_status()),
    }
}

fn unknown() -> Status {
    let message = "the caller is not known: send a service token as `authorization: Bearer kst_…`, or show a certificate";
    refusal(Code::Unauthenticated, ErrorReason::CallerUnknown, message)
}

/// The one service token among the credentials; two would be somebody's mistake or trick.
fn service_token(headers: &HeaderMap) -> Result<Option<ServiceToken>, Status> {
    let credentials = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = credentials.filter_map(ServiceToken::from_authorization);
    let token = tokens.next();
    if tokens.next().is_some() { Err(unknown()) } else { Ok(token) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_service_token_or_none() {
        let (one, other) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let bearer = |token: &ServiceToken| format!("Bearer {}", token.expose());
        let found = |credentials: &[String]| {
            let mut headers = HeaderMap::new();
            for value in credentials {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            service_token(&headers).map_err(|refusal| refusal.code())
        };
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[bearer(&one)]), Ok(Some(one.clone())));
        // Beside it may be what a user proves themselves with.
        assert_eq!(found(&["Bearer eyJhbGciOi".to_owned(), bearer(&one)]), Ok(Some(one.clone())));
        assert_eq!(found(&[bearer(&one), bearer(&other)]), Err(Code::Unauthenticated));
        assert_eq!(found(&[bearer(&one), bearer(&one)]), Err(Code::Unauthenticated));
    }
}
