//! Which certificates of the service the health check trusts.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    cli::Failure,
    input_file::{self, ShownPath},
};

/// A file with certificates that are trusted, or that issued what is trusted.
#[derive(Clone, Copy)]
pub(super) struct Roots<'a> {
    /// The flag or the setting that names the file.
    pub(super) named_by: &'static str,
    pub(super) file: &'a Path,
}

impl Roots<'_> {
    /// Formats an error of the file.
    fn failure(self, error: &str) -> Failure {
        format!("{} {}: {error}", self.named_by, ShownPath(self.file))
    }

    /// Reads the certificates.
    fn certificates(self) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let bytes = input_file::read(self.file).map_err(|error| format!("{} {error}", self.named_by))?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match read {
            Ok(read) if !read.is_empty() => Ok(read),
            _ => Err(self.failure("contains no certificate in PEM format")),
        }
    }
}

/// Creates the verifier: it trusts the certificates in the file and what they issued; without a file, the
/// authorities of the system.
pub(super) fn verifier(roots: Option<Roots<'_>>) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    let named = match roots {
        Some(roots) => roots.certificates()?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(named.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider).build();
    let authorities = authorities.map_err(|_| match roots {
        Some(roots) => roots.failure("contains no usable certificate"),
        None => "this system trusts no authority: name a file with a certificate with --ca-cert".to_owned(),
    })?;
    let pinned = if roots.is_some() { named } else { Vec::new() };
    Ok(Arc::new(Trust { authorities, pinned }))
}

/// Trusts what the authorities have issued, and the pinned certificates themselves. The authorities alone
/// would refuse many a self-signed certificate: `openssl req -x509` marks it as that of an authority, and the
/// certificate of a server must not be marked so.
#[derive(Debug)]
struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let issued =
            self.authorities.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        if issued.is_ok() || !self.pinned.contains(certificate) {
            return issued;
        }
        verify_pinned(certificate, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Verifies the validity of a pinned certificate, and its names if it has any. A certificate without names
/// identifies the service by its key alone.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let invalid = |error: CertificateError| Error::InvalidCertificate(error);
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| invalid(CertificateError::BadEncoding))?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if seconds < parsed.validity().not_before.timestamp() {
        return Err(invalid(CertificateError::NotValidYet));
    }
    if seconds > parsed.validity().not_after.timestamp() {
        return Err(invalid(CertificateError::Expired));
    }
    let has_names = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .is_some_and(|names| !names.value.general_names.is_empty());
    if has_names { verify_server_name(&ParsedCertificate::try_from(certificate)?, name) } else { Ok(()) }
}
