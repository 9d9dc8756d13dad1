//! Loads the server's certificate and verifies those of callers.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::{
    certificate::Validity,
    prelude::{FromDer, GeneralName, X509Certificate},
};

use crate::{
    domain::Timestamp,
    input_file::{self, InputFileError, ShownPath},
    metrics::{Registry, Unit, register_gauge},
};

/// A certificate that ends within this time is warned of: 7 days. Most certificates are renewed earlier, by a
/// program.
const RENEWAL_DUE_SECONDS: i64 = 7 * 24 * 60 * 60;

/// The TLS configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate file cannot be read, or other users may change the file of certificate authorities.
    #[error("{source}")]
    UnusableFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: InputFileError,
    },
    /// A certificate file cannot be parsed.
    #[error("{}: {source}", ShownPath(path))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// The key file cannot be read, or other users may change it.
    #[error("{0}")]
    UnusableKeyFile(#[source] InputFileError),
    /// The key file does not contain a key. The parser's error is omitted: it repeats lines of the file,
    /// which may be the key.
    #[error("{}: contains no private key in PEM format", ShownPath(path))]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key in the key file is encrypted with a password.
    #[error(
        "{}: its private key is encrypted with a password: decrypt it with `openssl pkey -in {} -out plain.pem`",
        ShownPath(path),
        path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate file does not contain a certificate.
    #[error("{}: contains no certificate", ShownPath(path))]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate file is in binary form.
    #[error(
        "{}: is in DER format: convert it with `openssl x509 -inform der -in {} -out cert.pem`",
        ShownPath(path),
        path.display()
    )]
    BinaryCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file of certificate authorities contains no CA certificate, or one that cannot be used.
    #[error("{}: contains no CA certificate, or one that is damaged", ShownPath(path))]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The key does not belong to the certificate, or TLS does not support its type.
    #[error("{} and {}: {}", ShownPath(certificate), ShownPath(key), pair_rule(reason))]
    InvalidKeyPair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The cause.
        reason: rustls::Error,
    },
}

/// Says why a certificate and a key cannot be used together.
fn pair_rule(reason: &rustls::Error) -> String {
    match reason {
        rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        // The key has been found in the file, so its kind is the reason.
        rustls::Error::General(_) => {
            "this kind of key is not supported: use ECDSA on P-256 or P-384, Ed25519, or RSA with 2,048 to 8,192 bits"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// A TLS configuration, with the time at which its certificate ends.
#[derive(Debug, Clone)]
pub struct LoadedTls {
    config: Arc<ServerConfig>,
    /// Unix time in seconds; `None` if the certificate cannot be parsed.
    not_after: Option<i64>,
}

/// The TLS configuration of new connections. Clones share the configuration, also after
/// [`CurrentTls::replace`].
#[derive(Clone)]
pub struct CurrentTls(Arc<RwLock<LoadedTls>>);

impl CurrentTls {
    /// Replaces the configuration for new connections. Open connections are not affected.
    pub fn replace(&self, loaded: LoadedTls) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.loaded().config).into()
    }

    /// Adds the end of the certificate to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let current = self.clone();
        register_gauge(
            registry,
            "tls_certificate_expiry_timestamp",
            "Unix time at which the certificate of the API port ends; NaN if it is unknown",
            Some(Unit::Seconds),
            move || {
                let not_after = current.loaded().not_after.and_then(|seconds| u32::try_from(seconds).ok());
                not_after.map_or(f64::NAN, f64::from)
            },
        );
    }

    fn loaded(&self) -> RwLockReadGuard<'_, LoadedTls> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<LoadedTls> for CurrentTls {
    fn from(loaded: LoadedTls) -> Self {
        Self(Arc::new(RwLock::new(loaded)))
    }
}

/// The protocol inside TLS, as negotiated by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`, and `http/1.1` for clients without HTTP/2.
    Http2,
    /// `http/1.1`
    Http1,
}

/// Loads a certificate chain and its key (PEM) for TLS 1.2 and 1.3. With `client_ca`, a client may present a
/// certificate that was issued by one of these authorities; a client with another certificate is rejected.
/// Without it, no client certificate is requested.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn load_tls(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    alpn: Alpn,
) -> Result<LoadedTls, TlsError> {
    let chain = certificates(certificate, input_file::read_trusted(certificate))?;
    let not_after = validity(&chain).map(|validity| validity.not_after.timestamp());
    let private_key = private_key(key, alpn)?;
    let invalid = |source| {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        TlsError::InvalidKeyPair { certificate, key, reason: source }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match client_ca {
        Some(path) => client_verifier(path, Arc::clone(&provider))?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private_key)
        .map_err(invalid)?;
    let alpn: &[&[u8]] = match alpn {
        Alpn::Http2 => &[b"h2", b"http/1.1"],
        Alpn::Http1 => &[b"http/1.1"],
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(LoadedTls { config: Arc::new(config), not_after })
}

/// Parses the certificates of a file that was read, at least one.
fn certificates(
    path: &Path,
    read: Result<Vec<u8>, InputFileError>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read.map_err(|source| TlsError::UnusableFile { path: path.to_owned(), source })?;
    let in_file = |source| TlsError::File { path: path.to_owned(), source };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(in_file)?;
    if !all.is_empty() {
        return Ok(all);
    }
    let path = path.to_owned();
    let is_binary = X509Certificate::from_der(&bytes).is_ok();
    Err(if is_binary { TlsError::BinaryCertificate { path } } else { TlsError::NoCertificate { path } })
}

/// Returns a warning if clients refuse the certificate in a file, or will soon.
#[must_use]
pub fn certificate_warning(path: &Path, now: Timestamp) -> Option<String> {
    let chain = certificates(path, input_file::read(path)).ok()?;
    let (validity, seconds) = (validity(&chain)?, now.unix_micros() / 1_000_000);
    let shown = ShownPath(path);
    if !is_for_servers(&chain) {
        return Some(format!(
            "{shown}: the certificate is not for servers (its extended key usage lacks serverAuth): clients refuse it"
        ));
    }
    if seconds > validity.not_after.timestamp() {
        Some(format!(
            "{shown}: the certificate expired at {}: clients refuse it, renew it",
            validity.not_after
        ))
    } else if seconds < validity.not_before.timestamp() {
        let from = validity.not_before;
        Some(format!("{shown}: the certificate is valid only from {from} on: clients refuse it until then"))
    } else if seconds > validity.not_after.timestamp() - RENEWAL_DUE_SECONDS {
        Some(format!("{shown}: the certificate ends at {}: renew it before then", validity.not_after))
    } else {
        None
    }
}

/// True if the first certificate of a chain may be that of a server (RFC 5280, 4.2.1.12).
fn is_for_servers(chain: &[CertificateDer<'_>]) -> bool {
    let certificate = chain.first().and_then(|first| X509Certificate::from_der(first).ok());
    let usage =
        certificate.as_ref().and_then(|(_, certificate)| certificate.extended_key_usage().ok().flatten());
    usage.is_none_or(|usage| usage.value.server_auth || usage.value.any)
}

/// Returns the validity of the first certificate of a chain, that of the server.
fn validity(chain: &[CertificateDer<'_>]) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    Some(certificate.validity().clone())
}

/// Creates the verifier of client certificates. A client without a certificate is accepted, because it may
/// authenticate with a service token.
fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let no_authority = || TlsError::NoAuthority { path: path.to_owned() };
    let mut roots = RootCertStore::empty();
    // Another user who may change this file decides which callers are authenticated.
    for authority in certificates(path, input_file::read_trusted(path))? {
        roots.add(authority).map_err(|_| no_authority())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.allow_unauthenticated().build().map_err(|_| no_authority())
}

/// Returns the names in a verified certificate: `uri:...`, `dns:...` (lower case) and `cn:...`. Returns no
/// names if the bytes are not a certificate.
#[must_use]
pub fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    let alternatives = alternatives.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase())),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    alternatives.chain(common.map(|name| format!("cn:{name}"))).collect()
}

/// Reads the private key. Logs a warning if other users may read the file. Both ports load it; only the
/// loading for HTTP/2 logs the warning, so that it appears once.
fn private_key(path: &Path, alpn: Alpn) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = input_file::read_secret(path).map_err(TlsError::UnusableKeyFile)?;
    if let Some(warning) = file.warning.filter(|_| alpn == Alpn::Http2) {
        tracing::warn!("TLS key: {warning}");
    }
    PrivateKeyDer::from_pem_slice(file.text.as_bytes()).map_err(|_| {
        let path = path.to_owned();
        if file.text.contains("ENCRYPTED") {
            TlsError::EncryptedKey { path }
        } else {
            TlsError::NoKey { path }
        }
    })
}
