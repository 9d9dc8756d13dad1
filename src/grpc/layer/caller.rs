//! Who calls, and whether they may: before anything of the request is read.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, header};
use tonic::{Code, Status, body::Body};

use super::super::{
    fields::Fields,
    status::{busy, refusal},
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

/// Why a request is not answered, and what the audit trail has of it: nothing of a request that is faulty.
pub(super) struct Refused {
    pub(super) status: Status,
    pub(super) audited: Option<(AuditKind, ErrorReason)>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, audited: None }
    }
}

/// Who makes a request.
pub(super) fn identify(
    gate: &CallerGate,
    request: &Request<Body>,
    peer: &Peer,
) -> Result<Arc<Caller>, Refused> {
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
) -> Result<(Requester, Ongoing), Refused> {
    if !caller.may_call(request.uri().path()) {
        let message = format!("the caller {} may not call this method", caller.name());
        let reason = ErrorReason::CallerNotAllowed;
        let status = refusal(Code::PermissionDenied, reason, &message);
        return Err(Refused { status, audited: Some((AuditKind::AuthzFail, reason)) });
    }
    let Some(ongoing) = caller.begin() else {
        let message = format!("the caller {} has too many calls under way", caller.name());
        let reason = ErrorReason::Overloaded;
        let status = busy(Code::ResourceExhausted, reason, &message, RETRY_AFTER);
        return Err(Refused { status, audited: Some((AuditKind::ExcessRateLimitExceeded, reason)) });
    };
    let client = if caller.tells_client() { client_address(request.headers())? } else { None };
    Ok((Requester { caller, client, peer: Some(peer.ip()) }, ongoing))
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

fn unknown() -> Refused {
    let message = "the caller is not known: send a service token as `authorization: Bearer kst_…`, or show a certificate";
    let reason = ErrorReason::CallerUnknown;
    let status = refusal(Code::Unauthenticated, reason, message);
    Refused { status, audited: Some((AuditKind::AuthzFail, reason)) }
}

/// The one service token among the credentials; two would be somebody's mistake or trick.
fn service_token(headers: &HeaderMap) -> Result<Option<ServiceToken>, Refused> {
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
            service_token(&headers).map_err(|refused| refused.status.code())
        };
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[bearer(&one)]), Ok(Some(one.clone())));
        // Beside it may be what a user proves themselves with.
        assert_eq!(found(&["Bearer eyJhbGciOi".to_owned(), bearer(&one)]), Ok(Some(one.clone())));
        assert_eq!(found(&[bearer(&one), bearer(&other)]), Err(Code::Unauthenticated));
        assert_eq!(found(&[bearer(&one), bearer(&one)]), Err(Code::Unauthenticated));
    }
}
