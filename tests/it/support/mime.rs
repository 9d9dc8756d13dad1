//! A small MIME parser for the mails of the service: headers, multipart bodies, quoted-printable and base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A message or a part: a header block and its body.
#[derive(Debug, Clone)]
pub struct Entity {
    /// Headers in their order; names in lower case, values unfolded.
    pub headers: Vec<(String, String)>,
    body: String,
}

impl Entity {
    /// Parses a message or a part whose lines end with CRLF or LF.
    pub fn parse(raw: &str) -> Self {
        let text = raw.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let headers = head
            .replace("\n ", " ")
            .replace("\n\t", " ")
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { headers, body: body.to_owned() }
    }

    /// Returns the value of the first header with this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns the decoded text of the first part with this content type (for example `"text/plain"`), at any
    /// depth.
    pub fn text_of(&self, content_type: &str) -> Option<String> {
        let own = self.header("content-type").unwrap_or("text/plain");
        match own.split_once("boundary=") {
            Some((_, rest)) => {
                let boundary = rest.trim_start_matches('"').split(['"', ';']).next().unwrap_or_default();
                self.parts(boundary).iter().find_map(|part| part.text_of(content_type))
            }
            None => own.starts_with(content_type).then(|| self.decoded()),
        }
    }

    fn parts(&self, boundary: &str) -> Vec<Self> {
        let delimiter = format!("--{boundary}");
        self.body
            .split(&delimiter)
            .skip(1)
            .take_while(|part| !part.starts_with("--"))
            .map(parse_part)
            .collect()
    }

    fn decoded(&self) -> String {
        match self.header("content-transfer-encoding").unwrap_or("7bit").to_ascii_lowercase().as_str() {
            "base64" => {
                let packed: String = self.body.split_whitespace().collect();
                String::from_utf8(STANDARD.decode(packed).unwrap()).unwrap()
            }
            "quoted-printable" => quoted_printable(&self.body),
            _ => self.body.clone(),
        }
    }
}

fn parse_part(part: &str) -> Entity {
    Entity::parse(part.strip_prefix('\n').unwrap_or(part))
}

/// Decodes quoted-printable (RFC 2045, section 6.7): `=XX` is a byte, and `=` at the end of a line joins it
/// with the next line.
fn quoted_printable(text: &str) -> String {
    let joined = text.replace("=\n", "");
    let mut pieces = joined.split('=');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend(piece[2..].bytes());
    }
    String::from_utf8(bytes).unwrap()
}

mod tests {
    use super::*;

    #[test]
    fn both_encodings_of_a_multipart_mail_are_decoded() {
        let raw = "Subject: a\r\n b\r\nContent-Type: multipart/alternative;\r\n boundary=\"x\"\r\n\r\n--x\r\n\
                   Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
                   caf=C3=A9 token=3Dab=\r\ncd\r\n--x\r\nContent-Type: text/html\r\n\
                   Content-Transfer-Encoding: base64\r\n\r\nPGI+\r\naGk8L2I+\r\n--x--\r\n";

        let mail = Entity::parse(raw);

        assert_eq!(mail.header("subject"), Some("a b"));
        assert_eq!(mail.text_of("text/plain").as_deref(), Some("café token=abcd\n"));
        assert_eq!(mail.text_of("text/html").as_deref(), Some("<b>hi</b>"));
        assert_eq!(mail.text_of("text/csv"), None);
    }
}
