//! Connects to the service, and finds out why a connection fails.

use std::{
    future::{Ready, ready},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

use super::trust::{Roots, verifier};
use crate::{
    cli::Failure,
    connection_failure::{CertificateAdvice, certificate_fault, resolution_fault},
    domain::chain,
};

/// Time limit for the answer to [`PROBE`].
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// A request that every HTTP/1.1 port answers.
const PROBE: &[u8] = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The failure if the port speaks HTTP/1.1 and not HTTP/2: it is probably the HTTP port of the service.
const NO_GRPC: &str = "the port answers, but there is no gRPC there: is this http.listen? Name the address of \
    server.listen";

/// The advice if the port does not answer HTTP/2 without TLS.
const NEEDS_TLS: &str = "a service with TLS needs an https URL (--url)";

/// The address in a URL.
pub(super) struct Target {
    host: String,
    port: u16,
    is_tls: bool,
}

impl Target {
    /// Parses an http or https URL.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let expected =
            || "expected a URL such as http://127.0.0.1:50051 or https://identity.example:443".to_owned();
        let uri: Uri = url.parse().map_err(|_| expected())?;
        let (is_tls, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(expected()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(expected)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(default_port), is_tls })
    }

    async fn open(&self) -> Result<TcpStream, Failure> {
        let opened = TcpStream::connect((self.host.as_str(), self.port)).await;
        opened.map_err(|error| {
            let resolution = resolution_fault(&error, &self.host);
            resolution.unwrap_or_else(|| format!("the service does not answer: {error}"))
        })
    }

    /// Returns why the port, which accepts connections, speaks no gRPC. `cause` is the library's reason.
    pub(super) async fn no_grpc(&self, cause: &str) -> Failure {
        if self.is_tls {
            return format!("the service does not answer: {cause}");
        }
        match tokio::time::timeout(PROBE_LIMIT, self.first_bytes()).await {
            Ok(Ok(bytes)) if bytes.starts_with(b"HTTP/1") => NO_GRPC.to_owned(),
            // A TLS alert (record type 21, version 3.x), or a connection that is closed at the first bytes.
            Ok(Ok(bytes)) if bytes.is_empty() || bytes.starts_with(&[21, 3]) => {
                format!("the service does not answer: the port refuses HTTP/2 without TLS; {NEEDS_TLS}")
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                format!("the service does not answer: the port refuses HTTP/2 without TLS; {NEEDS_TLS}")
            }
            Ok(Ok(bytes))
                if bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
            {
                let said = String::from_utf8_lossy(&bytes);
                format!(
                    "the port answers, but there is no gRPC there: the answer begins with {:?}",
                    said.trim_end()
                )
            }
            _ => format!("the service does not answer: {cause}; {NEEDS_TLS}"),
        }
    }

    /// Returns the first bytes that the port answers to a request of HTTP/1.1.
    async fn first_bytes(&self) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.write_all(PROBE).await?;
        // Enough for `HTTP/1` and for the start of a TLS record.
        let mut bytes = vec![0; 16];
        let read = stream.read(&mut bytes).await?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// Connects to the service. With TLS, its certificate must have `server_name` and be one of those in the file
/// `roots`, or be issued by one of them; without a file, by an authority that the system trusts.
pub(super) async fn connect(
    target: &Target,
    server_name: &str,
    roots: Option<Roots<'_>>,
) -> Result<Channel, Failure> {
    let stream = target.open().await?;
    let stream: Box<dyn Stream> =
        if target.is_tls { Box::new(handshake(stream, server_name, roots).await?) } else { Box::new(stream) };
    // The stream is connected already, and encrypted if it has to be. The URL only becomes the `:authority`.
    let endpoint = Endpoint::from_static("http://service");
    match endpoint.connect_with_connector(Once(Some(stream))).await {
        Ok(channel) => Ok(channel),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), chain);
            Err(target.no_grpc(&cause).await)
        }
    }
}

/// Completes the TLS handshake.
async fn handshake(
    stream: TcpStream,
    server_name: &str,
    roots: Option<Roots<'_>>,
) -> Result<impl Stream + use<>, Failure> {
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| format!("--server-name: {server_name} is neither a host name nor an IP address"))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier(roots)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = connected.map_err(|error| handshake_failure(&error, server_name))?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Ok(stream) } else { Err(NO_GRPC.to_owned()) }
}

/// Formats the error of a handshake.
fn handshake_failure(error: &io::Error, server_name: &str) -> Failure {
    use CertificateError::UnknownIssuer;
    const NO_TLS: &str = "this port speaks no TLS: write http:// instead of https://";
    // A port without TLS closes the connection at the first bytes, which are not those of its protocol.
    if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) {
        return NO_TLS.to_owned();
    }
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return format!("the service does not answer: the TLS handshake failed: {error}");
    };
    match cause {
        rustls::Error::InvalidMessage(_) => NO_TLS.to_owned(),
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => NO_GRPC.to_owned(),
        rustls::Error::InvalidCertificate(error) => {
            // Trust in the certificate itself also helps against the other reasons why no authority counts.
            let error = if let CertificateError::Other(_) = error { &UnknownIssuer } else { error };
            let advice = CertificateAdvice {
                name: server_name,
                rename: "give one of them with --server-name",
                trust: "name a file with the certificate, or with that of the authority, with --ca-cert",
            };
            format!("invalid peer certificate: it {}", certificate_fault(error, advice))
        }
        other => format!("the service does not answer: {other}"),
    }
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connector that has one connection.
struct Once(Option<Box<dyn Stream>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
