//! Tells forms of other sites from those of the pages, by what the browser says.
//!
//! A program that is no browser can send any header, and needs none of them.

use http::{HeaderMap, HeaderValue, header};
use url::Url;

/// The header with which a browser says where a request comes from (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// True if a browser says that another site sent the form.
///
/// Browsers send `Origin: null` for the pages themselves, because these send no referrer. So `null` is
/// accepted only from a browser that says by `Sec-Fetch-Site` that the site is the same.
pub(super) fn is_of_another_site(headers: &HeaderMap, public_base_url: &str) -> bool {
    let sites: Vec<&HeaderValue> = headers.get_all(SEC_FETCH_SITE).iter().collect();
    let is_same_site = match sites.as_slice() {
        [] => false,
        [site] if *site == "same-origin" || *site == "none" => true,
        _ => return true,
    };
    let origins: Vec<&HeaderValue> = headers.get_all(header::ORIGIN).iter().collect();
    match origins.as_slice() {
        [] => false,
        [origin] if *origin == "null" => !is_same_site,
        [origin] => !is_own(origin, headers, public_base_url),
        _ => true,
    }
}

/// True if `origin` is that of the pages: that of the links, or the host that the request is sent to.
fn is_own(origin: &HeaderValue, headers: &HeaderMap, public_base_url: &str) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok()) else { return false };
    let is_of_links = Url::parse(public_base_url).is_ok_and(|links| links.origin() == origin.origin());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let sent_to = host.and_then(|host| Url::parse(&format!("{}://{host}", origin.scheme())).ok());
    is_of_links || sent_to.is_some_and(|sent_to| sent_to.origin() == origin.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("kairos.test:8080"))]);
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        is_of_another_site(&map, "https://id.example/kairos")
    }

    #[test]
    fn a_form_of_another_site_is_refused_and_one_of_the_pages_is_not() {
        for accepted in [
            &[][..],
            &[("origin", "https://id.example")],
            &[("origin", "http://kairos.test:8080"), ("sec-fetch-site", "same-origin")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!is_refused(accepted), "{accepted:?}");
        }
        for refused in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &[("origin", "http://id.example")],
            &[("origin", "https://id.example:8443")],
            &[("origin", "http://kairos.test")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "null"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://id.example"), ("origin", "https://evil.example")],
        ] {
            assert!(is_refused(refused), "{refused:?}");
        }
    }
}
