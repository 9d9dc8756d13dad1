//! The gRPC services: one file per service, which calls a handler for each RPC.

mod account;
mod admin;
mod identity;
mod session;

use tonic::{
    Code, Request, Response, Status, body::Body, codegen::Service, server::NamedService, service::Routes,
};

use super::{
    compression,
    layer::{CallHandler, RecordEvent},
    page_tokens::PageTokens,
    request_id::{RequestId, current_request_id},
    resolution,
    status::{error_status, reason_name},
    unary,
};
use crate::{
    accounts::{Accounts, Administration, AuditTrail, MailedBy, Mails},
    callers::{Caller, Requester, UserFields},
    domain::{AuditEvent, AuditKind, CallNote, Origin},
    proto::{
        ErrorReason, account_service_server::AccountServiceServer, admin_service_server::AdminServiceServer,
        identity_service_server::IdentityServiceServer, session_service_server::SessionServiceServer,
    },
    store::Store,
};

/// The dependencies of the handlers.
#[derive(Clone)]
pub struct Api {
    /// Operations of users on their accounts and sessions.
    pub accounts: Accounts,
    /// Operations of operators.
    pub administration: Administration,
    /// Creates the mails of operations of operators.
    pub mails: Mails,
    /// Encrypts and decrypts page tokens.
    pub page_tokens: PageTokens,
    /// Look-ups, which need no rules of accounts.
    pub store: Store,
    /// Records what the services themselves refuse, and the calls whose operation has recorded no event.
    pub audit: AuditTrail,
}

/// The names of the services of the API, as in the health service and in method paths.
pub(super) const NAMES: [&str; 4] = [
    <IdentityServiceServer<Api> as NamedService>::NAME,
    <SessionServiceServer<Api> as NamedService>::NAME,
    <AccountServiceServer<Api> as NamedService>::NAME,
    <AdminServiceServer<Api> as NamedService>::NAME,
];

/// The services of the API, health and reflection.
///
/// For speed, calls of `IdentityService` bypass the router, which allocates for each call. Calls of
/// `ResolveToken` bypass the generated server too.
pub struct Services {
    identity: IdentityServiceServer<Api>,
    store: Store,
    audit: AuditTrail,
    message_bytes_max: usize,
    routes: Routes,
}

impl Services {
    /// Creates the services of the API, which accept requests of at most `message_bytes_max` bytes. `routes`
    /// already has health, and reflection if a setting enables it. All services of the API are added to it
    /// except `IdentityService`, which bypasses the router.
    #[must_use]
    pub fn new(api: Api, message_bytes_max: usize, routes: Routes) -> Self {
        let (store, audit) = (api.store.clone(), api.audit.clone());
        let sessions = SessionServiceServer::new(api.clone()).max_decoding_message_size(message_bytes_max);
        let account = AccountServiceServer::new(api.clone()).max_decoding_message_size(message_bytes_max);
        let admin = AdminServiceServer::new(api.clone()).max_decoding_message_size(message_bytes_max);
        let identity = IdentityServiceServer::new(api).max_decoding_message_size(message_bytes_max);
        let routes = routes.add_service(sessions).add_service(account).add_service(admin).prepare();
        Self { identity, store, audit, message_bytes_max, routes }
    }
}

impl Api {
    /// Records and returns `CALLER_NOT_ALLOWED` for a request that the caller has no right to, although it
    /// may call the method. `what` completes the sentence "the caller may not ...".
    fn deny<T>(&self, request: &Request<T>, what: &str) -> Status {
        let reason = ErrorReason::CallerNotAllowed;
        let event = self.audit.event(AuditKind::AuthzFail, &origin(request)).with_resource(what);
        self.audit.queue_event(event.with_reason(reason_name(reason)));
        let caller = requester(request).caller;
        error_status(Code::PermissionDenied, reason, &format!("the caller {} may not {what}", caller.name()))
    }

    /// Returns the sender of the mailed link: the service, or the caller if it requests the link's token.
    ///
    /// # Errors
    /// `CALLER_NOT_ALLOWED` if the caller requests the token without the right to it.
    fn mailed_by<T>(&self, request: &Request<T>, returns_token: bool) -> Result<MailedBy, Status> {
        if !returns_token {
            return Ok(MailedBy::Service);
        }
        if !requester(request).caller.receives_mail_tokens() {
            return Err(self.deny(request, "receive mailed tokens"));
        }
        Ok(MailedBy::Caller)
    }
}

impl CallHandler for Services {
    async fn handle(&self, mut request: http::Request<Body>, requester: Requester) -> http::Response<Body> {
        if let Some(rejection) = compression::reject(&request) {
            return rejection;
        }
        let path = request.uri().path();
        if path == RESOLVE_TOKEN {
            let resolve =
                |message| resolution::resolve_token(&self.store, message, requester.caller.fields());
            return unary::respond(request.into_body(), self.message_bytes_max, resolve).await;
        }
        let is_identity = is_identity_path(path);
        request.extensions_mut().insert(requester);
        let response = if is_identity {
            self.identity.clone().call(request).await
        } else {
            self.routes.clone().call(request).await
        };
        response.unwrap_or_else(|never| match never {})
    }
}

impl RecordEvent for Services {
    fn record_event(&self, event: AuditEvent) {
        self.audit.queue_call(event);
    }
}

/// The path of `ResolveToken`, which the agent calls for every message. [`unary`] handles it.
const RESOLVE_TOKEN: &str = "/kairos.identity.v1.IdentityService/ResolveToken";

/// True if the path starts with `/kairos.identity.v1.IdentityService/`.
fn is_identity_path(path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(<IdentityServiceServer<Api>>::NAME));
    rest.is_some_and(|method| method.starts_with('/'))
}

/// The result of an RPC: a response or an error status.
type RpcResult<T> = Result<Response<T>, Status>;

/// Returns the requester, which `Services::handle` has stored in the request. Falls back to the
/// unauthenticated caller, which has no rights to the API.
fn requester<T>(request: &Request<T>) -> Requester {
    let unauthenticated = || Requester {
        caller: Caller::unauthenticated(),
        client: None,
        agent: None,
        peer: None,
        note: CallNote::default(),
    };
    request.extensions().get::<Requester>().cloned().unwrap_or_else(unauthenticated)
}

/// Returns the user fields that the caller may see.
fn visible<T>(request: &Request<T>) -> UserFields {
    requester(request).caller.fields()
}

/// Returns the source of the request for the audit trail.
fn origin<T>(request: &Request<T>) -> Origin {
    requester(request).origin(current_request_id().map(RequestId::as_uuid))
}
