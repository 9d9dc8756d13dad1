//! The HTTP port: three pages behind the mailed links, and the public keys.
//!
//! To open a link changes nothing, since mail scanners and previews open every link; the button on its page does, by a POST. No page needs a
//! script, asks for anything from elsewhere, is kept, or tells another site where somebody comes from. Who acts is proven by the token of the
//! link alone, which the form sends along, so that no other site can send it for them. Start at [`Pages`].

mod form;
mod jwks;
mod page;
mod reply;
mod templates;

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;

pub use self::templates::{BadTemplates, PageTemplates};
use self::{form::Form, reply::Reply};
use crate::{
    accounts::Accounts,
    callers::PAGES,
    clock::Clock,
    domain::{MailTokenPurpose, Origin},
    entropy::Entropy,
    server::{Body, Peer, Served},
};

/// Where the public keys are: a well-known place (RFC 8615), as most issuers have it.
const JWKS: &str = "/.well-known/jwks.json";

/// Where the style of the pages is.
const STYLE: &str = "/style.css";

/// How many buttons may be at work at once; one more is told to try again. They share the hashing and the writer with everybody's logins, and
/// whoever presses them is nobody's caller.
const ACTS_MAX: usize = 16;

/// How the pages are served.
#[derive(Debug, Clone, Copy)]
pub struct PagesOptions {
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long the public keys may be kept: no longer than a new one waits before it signs.
    pub keys_kept: Duration,
}

/// What is served beside the public keys.
pub struct Pages {
    accounts: Accounts,
    templates: Option<PageTemplates>,
    options: PagesOptions,
    acts: Arc<Semaphore>,
    time_and_chance: (Clock, Entropy),
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Jwks,
    Style,
    Page(MailTokenPurpose),
}

impl Place {
    fn find(path: &str) -> Option<Self> {
        match path {
            JWKS => Some(Self::Jwks),
            STYLE => Some(Self::Style),
            _ => {
                let name = path.strip_prefix('/')?;
                MailTokenPurpose::ALL.into_iter().find(|purpose| purpose.page() == name).map(Self::Page)
            }
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Jwks => JWKS,
            Self::Style => STYLE,
            Self::Page(purpose) => purpose.page(),
        }
    }
}

impl Pages {
    /// Serves the public keys, and the pages if there are templates.
    #[must_use]
    pub fn new(
        accounts: Accounts,
        templates: Option<PageTemplates>,
        options: PagesOptions,
        time_and_chance: (Clock, Entropy),
    ) -> Self {
        Self { accounts, templates, options, acts: Arc::new(Semaphore::new(ACTS_MAX)), time_and_chance }
    }

    async fn reply(&self, request: Request<Body>, peer: &Peer) -> Reply {
        let place = Place::find(request.uri().path());
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match (place, &self.templates) {
            (Some(Place::Jwks), _) if is_read => jwks::reply(&self.accounts, self.options.keys_kept),
            (Some(Place::Jwks), _) => Reply::method_not_allowed("GET, HEAD"),
            (None, Some(templates)) => templates.error(StatusCode::NOT_FOUND),
            (_, None) => Reply::empty(StatusCode::NOT_FOUND),
            (Some(Place::Style), Some(templates)) if is_read => templates.style(),
            (Some(Place::Style), _) => Reply::method_not_allowed("GET, HEAD"),
            (Some(Place::Page(purpose)), Some(templates)) if is_read => {
                page::show(templates, purpose, request.uri().query().unwrap_or_default())
            }
            (Some(Place::Page(purpose)), Some(templates)) if request.method() == Method::POST => {
                match Form::read(request).await {
                    Ok(form) => self.act(templates, purpose, form, self.origin(peer)).await,
                    Err(status) => templates.error(status),
                }
            }
            (Some(Place::Page(_)), Some(_)) => Reply::method_not_allowed("GET, HEAD, POST"),
        }
    }

    /// In a task of its own, so that what has begun ends, whoever goes away meanwhile.
    async fn act(
        &self,
        templates: &PageTemplates,
        purpose: MailTokenPurpose,
        form: Form,
        origin: Origin,
    ) -> Reply {
        let Ok(place) = Arc::clone(&self.acts).try_acquire_owned() else {
            return templates.error(StatusCode::SERVICE_UNAVAILABLE).retry_after(page::RETRY_AFTER);
        };
        let (accounts, words) = (self.accounts.clone(), templates.clone());
        let acting = tokio::spawn(async move {
            let reply = page::act(&accounts, &words, purpose, form, &origin).await;
            drop(place);
            reply
        });
        acting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "A page broke");
            templates.error(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }

    fn origin(&self, peer: &Peer) -> Origin {
        let request_id = uuid::Builder::from_random_bytes(self.time_and_chance.1.bytes()).into_uuid();
        Origin { peer: Some(peer.ip()), request_id: Some(request_id), ..Origin::local(PAGES) }
    }
}

impl Served for Pages {
    async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        let clock = &self.time_and_chance.0;
        let began = clock.instant();
        // Never the query, which holds the token; of paths only those that are ours.
        let path = Place::find(request.uri().path()).map_or("-", Place::path);
        let method = known_method(request.method());
        let reply = tokio::time::timeout(self.options.request_timeout, self.reply(request, peer)).await;
        let reply = reply.unwrap_or_else(|_| match &self.templates {
            Some(templates) => templates.error(StatusCode::SERVICE_UNAVAILABLE),
            None => Reply::empty(StatusCode::SERVICE_UNAVAILABLE),
        });
        let response = reply.into_response();
        let millis = clock.instant().duration_since(began).as_secs_f64() * 1e3;
        let status = response.status().as_u16();
        tracing::info!(peer = %peer.ip(), method, path, status, "A page in {millis:.1} ms");
        response
    }
}

/// Of methods, those that there are; whoever made up another fills no log with it.
fn known_method(method: &Method) -> &'static str {
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
    fn a_path_leads_to_one_place_or_none() {
        assert_eq!(Place::find("/verify"), Some(Place::Page(MailTokenPurpose::VerifyEmail)));
        assert_eq!(Place::find("/reset-password"), Some(Place::Page(MailTokenPurpose::ResetPassword)));
        assert_eq!(Place::find("/confirm-email"), Some(Place::Page(MailTokenPurpose::ChangeEmail)));
        assert_eq!(Place::find("/.well-known/jwks.json"), Some(Place::Jwks));
        for none in ["/", "", "verify", "/verify/", "/Verify", "//verify", "/../verify", "/style.css/"] {
            assert_eq!(Place::find(none), None, "{none}");
        }
    }
}
