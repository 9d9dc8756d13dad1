//! Temporary TLS certificates.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use tempfile::TempDir;
use tonic::transport::{ClientTlsConfig, Identity};

use super::private_file;

/// A self-signed certificate for `localhost` and 127.0.0.1 and its private key, as PEM files.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Creates a certificate and its key.
    pub fn localhost() -> Self {
        Self::with_names(&["localhost", "127.0.0.1"], |_| {})
    }

    /// Creates a certificate for these names, and its key. `change` may change the parameters.
    pub fn with_names(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        private_file::write(folder.path().join("key.pem"), key.serialize_pem());
        Self { folder }
    }

    /// Creates a certificate for `localhost` and 127.0.0.1 that has expired.
    pub fn expired() -> Self {
        Self::with_names(&["localhost", "127.0.0.1"], |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    /// Returns the path of the certificate, which is also the root certificate to trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Returns the TLS settings of a client that trusts this certificate.
    pub fn trust(&self) -> ClientTlsConfig {
        let root = tonic::transport::Certificate::from_pem(fs::read(self.certificate()).unwrap());
        ClientTlsConfig::new().ca_certificate(root).domain_name("localhost")
    }

    /// Returns the path of the private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}

/// A certificate authority that issues client certificates for callers.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Creates an authority with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        private_file::write(folder.path().join("ca.pem"), issuer.pem());
        Self { folder, issuer }
    }

    /// Returns the path of the authority's certificate (PEM).
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Issues a client certificate with this common name and, if `uri` is not empty, this URI as subject
    /// alternative name.
    pub fn issue_client_certificate(&self, common_name: &str, uri: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if !uri.is_empty() {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}
