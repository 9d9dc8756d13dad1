//! HTML form data sent by a browser.

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use url::form_urlencoded;

use crate::server::Body;

/// The maximum size of a form body: two passwords of 1,024 bytes, each byte percent-encoded as three, and a
/// token.
const BYTES_MAX: usize = 8 * 1024;

/// The fields of a form.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the form in the body of a request.
    ///
    /// # Errors
    /// The HTTP status of the response: 415 if the body is not a form, 413 if it is too long, 400 if it is
    /// incomplete.
    pub async fn read(request: Request<Body>) -> Result<Self, StatusCode> {
        if !is_form(&request) {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let body = Limited::new(request.into_body(), BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            }
        })?;
        Ok(Self::parse(&bytes.to_bytes()))
    }

    /// Parses the fields of a query string or a form body.
    pub fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// Removes and returns the value of the field with this name; an empty string if the field is missing or
    /// occurs more than once.
    pub fn take(&mut self, name: &str) -> String {
        let mut values = self.0.iter_mut().filter(|(field, _)| field == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => std::mem::take(value),
            _ => String::new(),
        }
    }
}

/// True if the content type is that of an HTML form.
fn is_form(request: &Request<Body>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_occurs_more_than_once_is_empty() {
        let mut form = Form::parse(b"token=a%2Fb+c&new_password=%C3%A4&new_password=2");
        assert_eq!(form.take("token"), "a/b c");
        assert_eq!(form.take("new_password"), "");
        assert_eq!(form.take("other"), "");
    }
}
