//! The table of contents: one file a service, one line an RPC.

mod account;
mod admin;
mod identity;
mod session;

use tonic::{
    Code, Request, Response, Status, body::Body, codegen::Service, server::NamedService, service::Routes,
};

use super::{
    layer::{Answers, RequestId, current_request_id},
    resolution,
    status::{name, refusal},
    unary,
};
use crate::{
    accounts::{Accounts, Administration, AuditTrail, MailedBy, Mails, PageTokens},
    callers::{Caller, Requester, UserFields},
    domain::{AuditEvent, AuditKind, ClientAgent, Origin},
    proto::{
        ErrorReason, account_service_server::AccountServiceServer, admin_service_server::AdminServiceServer,
        identity_service_server::IdentityServiceServer, session_service_server::SessionServiceServer,
    },
    store::Store,
};

/// What the handlers act on.
#[derive(Clone)]
pub struct Api {
    /// What decides or changes.
    pub accounts: Accounts,
    /// What operators do.
    pub administration: Administration,
    /// Who makes the mails that operators ask for.
    pub mails: Mails,
    /// Where the next page of a list begins.
    pub page_tokens: PageTokens,
    /// What only reads.
    pub store: Store,
    /// Told of whom the layers turn away.
    pub audit: AuditTrail,
}

/// The names of our services, as health and the paths of calls have them.
pub(super) const NAMES: [&str; 4] = [
    <IdentityServiceServer<Api> as NamedService>::NAME,
    <SessionServiceServer<Api> as NamedService>::NAME,
    <AccountServiceServer<Api> as NamedService>::NAME,
    <AdminServiceServer<Api> as NamedService>::NAME,
];

/// The API, and the services beside it (health, reflection).
///
/// `IdentityService` is found by its path's beginning and called without the router, whose boxes would cost each call some
/// allocations; `ResolveToken` without those of the generated server too.
pub struct Services {
    identity: IdentityServiceServer<Api>,
    store: Store,
    audit: AuditTrail,
    message_bytes_max: usize,
    others: Routes,
}

impl Services {
    /// The API, whose requests are at most `message_bytes_max` long, and the others.
    #[must_use]
    pub fn new(api: Api, message_bytes_max: usize, others: Routes) -> Self {
        let (store, audit) = (api.store.clone(), api.audit.clone());
        let sessions = SessionServiceServer::new(api.clone()).max_decoding_message_size(message_bytes_max);
        let account = AccountServiceServer::new(api.clone()).max_decoding_message_size(message_bytes_max);
        let admin = AdminServiceServer::new(api.clone()).max_decoding_message_size(message_bytes_max);
        let identity = IdentityServiceServer::new(api).max_decoding_message_size(message_bytes_max);
        let others = others.add_service(sessions).add_service(account).add_service(admin).prepare();
        Self { identity, store, audit, message_bytes_max, others }
    }
}

impl Api {
    /// The refusal of something that the caller may not do although it may call the method; written down.
    fn deny<T>(&self, request: &Request<T>, what: &str) -> Status {
        let reason = ErrorReason::CallerNotAllowed;
        let event = self.audit.event(AuditKind::AuthzFail, &origin(request)).of(what);
        self.audit.note(event.refused(name(reason)));
        let caller = requester(request).caller;
        refusal(Code::PermissionDenied, reason, &format!("the caller {} may not {what}", caller.name()))
    }

    /// Who mails the link of a request; the caller only if it asks for the token and has the right to it.
    fn mailed_by<T>(&self, request: &Request<T>, asks_for_token: bool) -> Result<MailedBy, Status> {
        if !asks_for_token {
            return Ok(MailedBy::Service);
        }
        if !requester(request).caller.receives_mail_tokens() {
            return Err(self.deny(request, "receive mailed tokens"));
        }
        Ok(MailedBy::Caller)
    }
}

impl Answers for Services {
    async fn answer(&self, mut request: http::Request<Body>, requester: Requester) -> http::Response<Body> {
        let path = request.uri().path();
        if path == RESOLVE_TOKEN && unary::is_plain(&request) {
            let resolve =
                |message| resolution::resolve_token(&self.store, message, requester.caller.fields());
            return unary::answer(request.into_body(), self.message_bytes_max, resolve).await;
        }
        let is_identity = is_of_identity(path);
        request.extensions_mut().insert(requester);
        let answered = if is_identity {
            self.identity.clone().call(request).await
        } else {
            self.others.clone().call(request).await
        };
        answered.unwrap_or_else(|never| match never {})
    }

    fn refused(&self, event: AuditEvent) {
        self.audit.note(event);
    }
}

/// What the agent calls on every message, and so the one that is answered by [`unary`].
const RESOLVE_TOKEN: &str = "/kairos.identity.v1.IdentityService/ResolveToken";

/// Whether the path is `/kairos.identity.v1.IdentityService/…`.
fn is_of_identity(path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(<IdentityServiceServer<Api>>::NAME));
    rest.is_some_and(|method| method.starts_with('/'))
}

type Answer<T> = Result<Response<T>, Status>;

/// Who asks; nobody, should the layers have let through somebody unknown.
fn requester<T>(request: &Request<T>) -> Requester {
    let nobody = || Requester { caller: Caller::nobody(), client: None, peer: None };
    request.extensions().get::<Requester>().cloned().unwrap_or_else(nobody)
}

/// What of a user the caller may see.
fn visible<T>(request: &Request<T>) -> UserFields {
    requester(request).caller.fields()
}

/// The end user's program; of a caller that may not tell it, it is not believed.
const CLIENT_AGENT: &str = "kairos-client-agent";

/// Who asks, to be written down.
fn origin<T>(request: &Request<T>) -> Origin {
    let agent = request.metadata().get(CLIENT_AGENT);
    let agent = agent.and_then(|agent| ClientAgent::from_told(agent.as_encoded_bytes()));
    requester(request).origin(agent, current_request_id().map(RequestId::as_uuid))
}
