//! The HTTP port: four pages for mailed links, the public keys, the contact for reports of flaws, and two
//! probes for orchestrators such as Kubernetes.
//!
//! Opening a link changes nothing, because mail scanners and previews open every link. The button on its page
//! sends a POST, which makes the change. The pages use no script, load nothing from other sites, are not
//! cached, and send no referrer. The token of the link, which the form sends, is the only credential. Another
//! site does not have it and so cannot forge the request; its form is refused in any case (`origin.rs`).
//! Start at [`Pages`].

mod form;
mod jwks;
mod origin;
mod page;
mod reply;
mod security_txt;
mod templates;

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, watch};

pub use self::templates::{PageTemplates, TemplatesError};
use self::{form::Form, reply::Reply};
use crate::{
    accounts::{Accounts, OldLinks},
    callers::PAGES,
    domain::{AuthToken, CallNote, MailTokenPurpose, Origin},
    env::Env,
    server::{Body, HttpHandler, Peer, PeerLog},
};

/// The path of the public keys: the well-known URI (RFC 8615) that most issuers use.
const JWKS: &str = "/.well-known/jwks.json";

/// The path of the contact for reports of flaws (RFC 9116, section 3).
const SECURITY_TXT: &str = "/.well-known/security.txt";

/// The path of the verification links that the Django backend mailed, without the `auth_token` at its end.
const OLD_LINKS: &str = "/api/verify/";

/// The path that shows that the process serves requests.
const LIVEZ: &str = "/livez";

/// The path that shows whether the service can do everything, as the health service reports it.
const READYZ: &str = "/readyz";

/// The path of the style sheet.
const STYLE: &str = "/style.css";

/// The maximum number of form submissions in flight; further ones get status 503. Submissions share the
/// hashing pool and the database writer with logins, and they need no authenticated caller.
const SUBMISSIONS_MAX: usize = 16;

/// The options of the pages.
#[derive(Debug, Clone)]
pub struct PagesOptions {
    /// The time limit of one request.
    pub request_timeout: Duration,
    /// The time that clients may cache the public keys: at most the time that a new key is published before
    /// it signs.
    pub keys_max_age: Duration,
    /// The URL to which flaws are reported, if there is one.
    pub security_contact: Option<String>,
    /// The URL that mailed links begin with: its origin is that of the pages.
    pub public_base_url: String,
    /// Whether the service can do everything now.
    pub readiness: watch::Receiver<bool>,
}

/// The HTTP service: the public keys and, if there are templates, the pages.
pub struct Pages {
    accounts: Accounts,
    templates: Option<PageTemplates>,
    options: PagesOptions,
    submissions: Arc<Semaphore>,
    peer_log: PeerLog,
    env: Env,
}

/// The resource of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Jwks,
    SecurityTxt,
    Livez,
    Readyz,
    Style,
    Page(MailTokenPurpose),
    /// A verification link of the Django backend, and the relative URL that leads from the path of the link
    /// to the folder of the pages.
    OldLink(AuthToken, &'static str),
}

impl Route {
    /// Returns the resource of exactly this path.
    fn find(path: &str) -> Option<Self> {
        match path {
            JWKS => Some(Self::Jwks),
            SECURITY_TXT => Some(Self::SecurityTxt),
            LIVEZ => Some(Self::Livez),
            READYZ => Some(Self::Readyz),
            STYLE => Some(Self::Style),
            _ if path.starts_with(OLD_LINKS) => Self::find_old_link(path.strip_prefix(OLD_LINKS)?),
            _ => {
                let name = path.strip_prefix('/')?;
                MailTokenPurpose::ALL.into_iter().find(|purpose| purpose.page() == name).map(Self::Page)
            }
        }
    }

    /// Returns the resource of a link of the Django backend. `rest` is the path after [`OLD_LINKS`]. It may
    /// lack the slash with which the paths of Django end; relative URLs then start one folder higher.
    fn find_old_link(rest: &str) -> Option<Self> {
        let (token, root) = match rest.strip_suffix('/') {
            Some(token) => (token, "../../../"),
            None => (rest, "../../"),
        };
        AuthToken::parse(token).ok().map(|token| Self::OldLink(token, root))
    }

    /// Returns the text for the log: the path, or the name of the page. It contains no token.
    const fn logged_path(self) -> &'static str {
        match self {
            Self::Jwks => JWKS,
            Self::SecurityTxt => SECURITY_TXT,
            Self::Livez => LIVEZ,
            Self::Readyz => READYZ,
            Self::Style => STYLE,
            Self::Page(purpose) => purpose.page(),
            Self::OldLink(..) => OLD_LINKS,
        }
    }
}

impl Pages {
    /// Creates the service. Without templates it serves no pages.
    #[must_use]
    pub fn new(
        accounts: Accounts,
        templates: Option<PageTemplates>,
        options: PagesOptions,
        env: Env,
    ) -> Self {
        let submissions = Arc::new(Semaphore::new(SUBMISSIONS_MAX));
        let peer_log = PeerLog::new(env.clock.clone());
        Self { accounts, templates, options, submissions, peer_log, env }
    }

    /// Routes the request and returns the reply. Without templates, no page is found.
    async fn route_request(&self, request: Request<Body>, peer: &Peer) -> Reply {
        let route = Route::find(request.uri().path());
        let is_get_or_head = matches!(*request.method(), Method::GET | Method::HEAD);
        match (route, &self.templates) {
            (Some(Route::Jwks), _) if is_get_or_head => {
                jwks::reply(&self.accounts, self.options.keys_max_age)
            }
            (Some(Route::Livez), _) if is_get_or_head => Reply::text(StatusCode::OK, "ok\n"),
            (Some(Route::Readyz), _) if is_get_or_head => self.readiness(),
            (Some(Route::Jwks | Route::Livez | Route::Readyz), _) => Reply::method_not_allowed("GET, HEAD"),
            (Some(Route::SecurityTxt), _) if self.options.security_contact.is_some() => {
                self.security_txt(is_get_or_head)
            }
            (None | Some(Route::SecurityTxt), Some(templates)) => templates.error(StatusCode::NOT_FOUND),
            (_, None) => Reply::empty(StatusCode::NOT_FOUND),
            (Some(Route::Style), Some(templates)) if is_get_or_head => templates.style(),
            (Some(Route::OldLink(..)), Some(templates)) if self.accounts.old_links() == OldLinks::Refused => {
                templates.error(StatusCode::NOT_FOUND)
            }
            (Some(Route::OldLink(token, root)), Some(templates)) if is_get_or_head => {
                page::show_old_link(&self.accounts, templates, token, root)
            }
            (Some(Route::Style | Route::OldLink(..)), _) => Reply::method_not_allowed("GET, HEAD"),
            (Some(Route::Page(purpose)), Some(templates)) if is_get_or_head => {
                page::show(&self.accounts, templates, purpose, request.uri().query().unwrap_or_default())
            }
            (Some(Route::Page(purpose)), Some(templates)) if request.method() == Method::POST => {
                let origin = self.origin(peer);
                match self.read_form(request).await {
                    Ok(form) => self.submit(templates, purpose, form, origin).await,
                    Err(status) => {
                        page::note_refusal(&self.accounts, purpose, &origin, page::INVALID_INPUT);
                        templates.error(status)
                    }
                }
            }
            (Some(Route::Page(_)), Some(_)) => Reply::method_not_allowed("GET, HEAD, POST"),
        }
    }

    /// Reads the form of a request, or returns the status of its refusal.
    async fn read_form(&self, request: Request<Body>) -> Result<Form, StatusCode> {
        if origin::is_of_another_site(request.headers(), &self.options.public_base_url) {
            return Err(StatusCode::FORBIDDEN);
        }
        Form::read(request).await
    }

    /// Returns 200 if the service can do everything, and 503 otherwise.
    fn readiness(&self) -> Reply {
        if *self.options.readiness.borrow() {
            Reply::text(StatusCode::OK, "ready\n")
        } else {
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }

    /// Returns the contact for reports of flaws.
    fn security_txt(&self, is_get_or_head: bool) -> Reply {
        match &self.options.security_contact {
            Some(contact) if is_get_or_head => security_txt::reply(contact, self.env.clock.now()),
            _ => Reply::method_not_allowed("GET, HEAD"),
        }
    }

    /// Handles a submitted form in its own task, so that it completes even if the client disconnects.
    async fn submit(
        &self,
        templates: &PageTemplates,
        purpose: MailTokenPurpose,
        form: Form,
        origin: Origin,
    ) -> Reply {
        let Ok(permit) = Arc::clone(&self.submissions).try_acquire_owned() else {
            page::note_refusal(&self.accounts, purpose, &origin, page::BUSY);
            return templates.error(StatusCode::SERVICE_UNAVAILABLE).retry_after(page::RETRY_AFTER_SECONDS);
        };
        let (accounts, page_templates) = (self.accounts.clone(), templates.clone());
        let task = tokio::spawn(async move {
            let reply = page::submit(&accounts, &page_templates, purpose, form, &origin).await;
            drop(permit);
            reply
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "Page request failed: its task did not complete");
            templates.error(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }

    /// Returns the source of a submission for the audit trail, with a new request id.
    fn origin(&self, peer: &Peer) -> Origin {
        let request_id = uuid::Builder::from_random_bytes(self.env.entropy.bytes()).into_uuid();
        Origin {
            peer: Some(peer.ip()),
            request_id: Some(request_id),
            note: CallNote::begin(),
            ..Origin::local(PAGES)
        }
    }
}

impl HttpHandler for Pages {
    async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        let clock = &self.env.clock;
        let began = clock.instant();
        // The query is never logged, because it contains the token. Of paths, only known ones are logged.
        let route = Route::find(request.uri().path());
        let path = route.map_or("-", Route::logged_path);
        let (method, is_post) = (logged_method(request.method()), request.method() == Method::POST);
        let reply =
            tokio::time::timeout(self.options.request_timeout, self.route_request(request, peer)).await;
        let reply = reply.unwrap_or_else(|_| match &self.templates {
            Some(templates) => templates.error(StatusCode::SERVICE_UNAVAILABLE),
            None => Reply::empty(StatusCode::SERVICE_UNAVAILABLE),
        });
        let response = reply.into_response();
        let millis = clock.instant().duration_since(began).as_secs_f64() * 1e3;
        let status = response.status();
        let is_refused = status.is_client_error() || status.is_server_error();
        let status = status.as_u16();
        let is_probe = matches!(route, Some(Route::Livez | Route::Readyz));
        if is_probe || (!is_refused && !is_post) {
            // An orchestrator sends a probe every few seconds, and any client can get a page.
            tracing::debug!(peer = %peer.ip(), method, path, status, "HTTP request answered in {millis:.1} ms");
        // Equal refusals of a peer are logged once a minute, so that it cannot fill the log.
        } else if !is_refused || self.peer_log.admits(peer.ip(), format!("HTTP {method} {path} {status}")) {
            tracing::info!(peer = %peer.ip(), method, path, status, "HTTP request answered in {millis:.1} ms");
        }
        response
    }
}

/// Returns the method for the log, and "-" for any unexpected one, so that a client cannot write arbitrary
/// text into the log.
fn logged_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_paths_are_found() {
        assert_eq!(Route::find("/verify"), Some(Route::Page(MailTokenPurpose::VerifyEmail)));
        assert_eq!(Route::find("/reset-password"), Some(Route::Page(MailTokenPurpose::ResetPassword)));
        assert_eq!(Route::find("/confirm-email"), Some(Route::Page(MailTokenPurpose::ChangeEmail)));
        assert_eq!(Route::find("/undo-email-change"), Some(Route::Page(MailTokenPurpose::UndoEmailChange)));
        assert_eq!(Route::find("/.well-known/jwks.json"), Some(Route::Jwks));
        assert_eq!(Route::find("/.well-known/security.txt"), Some(Route::SecurityTxt));
        assert_eq!(Route::find("/style.css"), Some(Route::Style));
        assert_eq!(Route::find("/livez"), Some(Route::Livez));
        assert_eq!(Route::find("/readyz"), Some(Route::Readyz));
        let token = AuthToken::parse("3fbf2702-352c-4d48-a5e5-56a4d16d9f56").unwrap();
        let old_link = |root| Some(Route::OldLink(token, root));
        assert_eq!(Route::find(&format!("/api/verify/{token}/")), old_link("../../../"));
        assert_eq!(Route::find(&format!("/api/verify/{token}")), old_link("../../"));
        for unknown in [
            "/api/verify/",
            "/api/verify/x/",
            "/api/verify",
            "/",
            "",
            "verify",
            "/verify/",
            "/Verify",
            "//verify",
            "/../verify",
            "/style.css/",
        ] {
            assert_eq!(Route::find(unknown), None, "{unknown}");
        }
    }
}
