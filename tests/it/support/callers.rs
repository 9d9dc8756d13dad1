//! Callers (services that call the API) in the tests: the callers file, service tokens, and a client that
//! sends one.

use std::{fs, path::PathBuf};

use kairos_identity::callers::ServiceToken;
use tempfile::TempDir;
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

use super::{
    engine::Engine,
    private_file,
    server::{Builder, TestServer},
};

/// A callers file in a temporary folder.
pub struct CallersFile(TempDir);

impl CallersFile {
    /// Writes a file with these callers, each as (name, service token, method pattern, user field).
    pub fn new(callers: &[(&str, &ServiceToken, &str, &str)]) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(callers);
        file
    }

    /// Returns the path of the file.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("callers.toml")
    }

    /// Replaces the content of the file by these callers.
    pub fn write(&self, callers: &[(&str, &ServiceToken, &str, &str)]) {
        let entry = |(name, token, methods, fields): &(&str, &ServiceToken, &str, &str)| {
            format!(
                "[{name}]\ntoken-hashes = [\"{}\"]\nmethods = [\"{methods}\"]\nuser-fields = [\"{fields}\"]\n",
                token.hash()
            )
        };
        private_file::write(self.path(), callers.iter().map(entry).collect::<String>());
    }

    /// Starts a service that uses this callers file.
    pub async fn serve(&self, engine: Engine) -> TestServer {
        self.serve_on(TestServer::builder(engine)).await
    }

    /// Starts a service with the settings of `builder` and this callers file.
    pub async fn serve_on(&self, builder: Builder) -> TestServer {
        let path = self.path();
        builder.with_env("KAIROS_IDENTITY_CALLERS_FILE", path.to_str().unwrap()).start().await
    }

    /// Appends a line to the entry of the last caller.
    pub fn add(&self, line: &str) {
        let text = fs::read_to_string(self.path()).unwrap();
        private_file::write(self.path(), format!("{text}{line}\n"));
    }
}

/// Returns a service token made of 32 bytes `number`.
pub fn token(number: u8) -> ServiceToken {
    ServiceToken::from_random([number; 32])
}

/// Adds the service token, if there is one, to the metadata `authorization` of every call.
#[derive(Clone)]
pub struct Bearer(pub Option<ServiceToken>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = format!("Bearer {}", token.expose());
            // `append`, not `insert`: the metadata may already hold the access token of the end user.
            request.metadata_mut().append("authorization", MetadataValue::try_from(value).unwrap());
        }
        Ok(request)
    }
}
