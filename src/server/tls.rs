//! The server's certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file cannot be read as such.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The key file cannot be read.
    #[error("{}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key file holds no key. What is wrong is not quoted: the parser repeats lines, and a line may be the key.
    #[error("{}: holds no private key in PEM form", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate file holds no certificate.
    #[error("{}: holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the certificate's, or of a kind that TLS does not take.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Unfit {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// Reads a certificate chain and its key (PEM) for TLS 1.2 and 1.3 with HTTP/2.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn load_tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let in_file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(in_file(certificate))?.collect();
    let chain = chain.map_err(in_file(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: certificate.to_owned() });
    }
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_key_file(key, error))?;
    let unfit = |source| TlsError::Unfit { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn in_key_file(path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::KeyFile { path, source },
        _ => TlsError::NoKey { path },
    }
}
