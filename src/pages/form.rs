//! What a browser sends from a form.

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use url::form_urlencoded;

use crate::server::Body;

/// Two passwords of 1,024 bytes, each of which takes three in a form, and a token.
const BYTES_MAX: usize = 8 * 1024;

/// The fields of a form.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// The status to answer with: the body is no form, is too long, or broke off.
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

    /// Reads fields as they stand in a query or a form.
    pub fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The one field of this name; empty when there is none, or more than one.
    pub fn take(&mut self, name: &str) -> String {
        let mut values = self.0.iter_mut().filter(|(field, _)| field == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => std::mem::take(value),
            _ => String::new(),
        }
    }
}

/// The type of what a browser sends from a form.
fn is_form(request: &Request<Body>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_there_once_or_not_at_all() {
        let mut form = Form::parse(b"token=a%2Fb+c&new_password=%C3%A4&new_password=2");
        assert_eq!(form.take("token"), "a/b c");
        assert_eq!(form.take("new_password"), "");
        assert_eq!(form.take("other"), "");
    }
}
