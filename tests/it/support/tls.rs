//! Throwaway certificates.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

/// A certificate for `localhost` and 127.0.0.1 that vouches for itself, as PEM files.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// A new one.
    pub fn localhost() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        Self { folder }
    }

    /// The certificate, which is also the root to trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}
