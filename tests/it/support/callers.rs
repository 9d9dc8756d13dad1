//! Callers as the tests make them: their file, their tokens, and how a client shows one.

use std::{fs, path::PathBuf};

use kairos_identity::callers::ServiceToken;
use tempfile::TempDir;
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

use super::{
    engine::Engine,
    server::{Builder, TestServer},
};

/// A file of callers that a test writes.
pub struct CallersFile(TempDir);

impl CallersFile {
    /// Each caller with its token, methods and fields.
    pub fn new(callers: &[(&str, &ServiceToken, &str, &str)]) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(callers);
        file
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("callers.toml")
    }

    /// Writes it anew.
    pub fn write(&self, callers: &[(&str, &ServiceToken, &str, &str)]) {
        let entry = |(name, token, methods, fields): &(&str, &ServiceToken, &str, &str)| {
            format!(
                "[{name}]\ntoken-hashes = [\"{}\"]\nmethods = [\"{methods}\"]\nuser-fields = [\"{fields}\"]\n",
                token.hash()
            )
        };
        fs::write(self.path(), callers.iter().map(entry).collect::<String>()).unwrap();
    }

    /// A service that lets these callers in.
    pub async fn serve(&self, engine: Engine) -> TestServer {
        self.serve_on(TestServer::builder(engine)).await
    }

    /// The same, set up otherwise too.
    pub async fn serve_on(&self, builder: Builder) -> TestServer {
        let path = self.path();
        builder.with_env("KAIROS_IDENTITY_CALLERS_FILE", path.to_str().unwrap()).start().await
    }

    /// Gives the last caller one more line.
    pub fn add(&self, line: &str) {
        let text = fs::read_to_string(self.path()).unwrap();
        fs::write(self.path(), format!("{text}{line}\n")).unwrap();
    }
}

/// A caller's token.
pub fn token(number: u8) -> ServiceToken {
    ServiceToken::from_random([number; 32])
}

/// Sends a token with every call.
#[derive(Clone)]
pub struct Bearer(pub Option<ServiceToken>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = format!("Bearer {}", token.expose());
            // Beside it may be what the end user proves themselves with.
            request.metadata_mut().append("authorization", MetadataValue::try_from(value).unwrap());
        }
        Ok(request)
    }
}
