//! A minimal HTTP/1.1 client that shows the raw response.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A response.
#[derive(Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Everything after the headers.
    pub body: String,
}

impl HttpResponse {
    fn parse(raw: &str) -> Self {
        let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP response: {raw:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
    }

    /// Returns the value of a header (name in lower case); panics unless the header occurs exactly once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut values =
            self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let value = values.next().unwrap_or_else(|| panic!("no header {name}: {self:?}"));
        assert!(values.next().is_none(), "the header {name} occurs twice");
        value
    }
}

/// Sends these bytes, and returns everything that the server sends until it closes the connection.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    // The server may refuse the request early and close the connection before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// Sends a request with this method, these header lines and this body.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> HttpResponse {
    let headers = headers.iter().fold(String::new(), |all, header| all + header + "\r\n");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: kairos.test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    HttpResponse::parse(&exchange(address, format!("{head}{body}").as_bytes()))
}

/// Sends a GET request.
pub fn get(address: SocketAddr, path: &str) -> HttpResponse {
    request(address, "GET", path, &[], "")
}

/// Sends a POST request with a form.
pub fn post(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request(address, "POST", path, &["Content-Type: application/x-www-form-urlencoded"], &body)
}
