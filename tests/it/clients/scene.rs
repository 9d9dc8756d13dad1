//! A service with one caller, and the programs that play the story of a user against it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use kairos_identity::proto;
use serde::Deserialize;
use tempfile::TempDir;

use crate::support::{
    program::{program, stderr, stdout},
    server::{Builder, TestServer},
    tls::Certificate,
    tools::{node, node_module, python_command, repository, tool},
};

/// The steps of the story.
pub const STORY: [&str; 7] = [
    "register",
    "verify",
    "log in",
    "refresh",
    "change the password",
    "list the sessions",
    "delete the account",
];

/// What a client has done: a line that it prints.
#[derive(Debug, Deserialize)]
pub struct Story {
    pub client: String,
    pub steps: Vec<String>,
    /// The secrets that the client sent or received: tokens, passwords and the token of the mailed link.
    pub secrets: Vec<String>,
}

/// Asserts that these clients have completed the story.
#[track_caller]
pub fn assert_complete(stories: &[Story], clients: &[&str]) {
    let played: Vec<_> = stories.iter().map(|story| story.client.as_str()).collect();
    assert_eq!(played, clients);
    for story in stories {
        assert_eq!(story.steps, STORY, "{}", story.client);
        assert_eq!(story.secrets.len(), 8, "{}", story.client);
        assert!(story.secrets.iter().all(|secret| secret.len() > 20), "{}", story.client);
    }
}

/// A service whose only caller is a BFF, as `caller add bff --role bff` admits it.
pub struct Scene {
    pub server: TestServer,
    pub caller_token: String,
    folder: TempDir,
    certificate: Option<Certificate>,
}

impl Scene {
    pub async fn start(builder: Builder) -> Self {
        Self::start_with(builder, None).await
    }

    /// Starts a service that uses TLS.
    pub async fn start_with_tls(builder: Builder) -> Self {
        let certificate = Certificate::localhost();
        let (chain, key) = (certificate.certificate(), certificate.key());
        let arguments = ["--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        Self::start_with(builder.with_args(&arguments), Some(certificate)).await
    }

    async fn start_with(builder: Builder, certificate: Option<Certificate>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let callers = folder.path().join("callers.toml");
        let callers = callers.to_str().unwrap();
        let added =
            program(&["caller", "add", "bff", "--role", "bff", "--callers", callers]).output().unwrap();
        assert!(added.status.success(), "{}", stderr(&added));
        let caller_token = stdout(&added).trim().to_owned();
        fs::write(folder.path().join("api.binpb"), proto::FILE_DESCRIPTOR_SET).unwrap();
        // Node.js looks for packages beside the script.
        symlink(node_module(""), folder.path().join("node_modules")).unwrap();
        fs::copy(repository().join("tests/support/clients/story.mjs"), folder.path().join("story.mjs"))
            .unwrap();
        let server = builder.with_env("KAIROS_IDENTITY_CALLERS_FILE", callers).start().await;
        Self { server, caller_token, folder, certificate }
    }

    /// Returns the URL of a service without TLS.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Returns the certificate of the service, which clients and proxies trust, with its key.
    pub fn certificate(&self) -> &Certificate {
        self.certificate.as_ref().expect("the service uses TLS")
    }

    /// Returns the file with the descriptors of the API.
    pub fn descriptors(&self) -> PathBuf {
        self.folder.path().join("api.binpb")
    }

    /// Plays the story with these clients of Node.js.
    pub fn node(&self, url: &str, clients: &[&str]) -> Vec<Story> {
        let mut command = node();
        command.arg(self.folder.path().join("story.mjs")).args(clients);
        self.play(command, url)
    }

    /// Plays the story with these clients of Python.
    pub fn python(&self, url: &str, clients: &[&str]) -> Vec<Story> {
        let mut command = python_command("clients/story.py");
        command.args(clients);
        self.play(command, url)
    }

    /// Plays the story with the client of grpc-go, which is compiled with generated code.
    pub fn go(&self, url: &str, client: &str) -> Vec<Story> {
        let workspace = self.folder.path().join("go");
        let source = workspace.join("src");
        let template = serde_json::json!({
            "version": "v2",
            "managed": {"enabled": true, "override": [{"file_option": "go_package_prefix", "value": "kairos"}]},
            "plugins": [{"local": "protoc-gen-go", "out": source}, {"local": "protoc-gen-go-grpc", "out": source}],
        });
        buf_generate(&template, &workspace);
        let program = workspace.join("story");
        let compiled = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(repository().join("tests/support/clients/story.go"))
            // The libraries are Debian's, which have no modules.
            .env("GO111MODULE", "off")
            .env("GOPATH", format!("{}:/usr/share/gocode", workspace.display()))
            .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"))
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", stderr(&compiled));
        let mut command = Command::new(program);
        command.arg(client);
        self.play(command, url)
    }

    fn play(&self, mut command: Command, url: &str) -> Vec<Story> {
        command
            .env("KAIROS_URL", url)
            .env("KAIROS_CALLER_TOKEN", &self.caller_token)
            .env("KAIROS_MAIL_FOLDER", self.server.mail_folder())
            .env("KAIROS_PROTO", repository().join("proto"))
            .env("KAIROS_DESCRIPTORS", self.descriptors())
            .env("KAIROS_USERS", new_users());
        if let Some(certificate) = &self.certificate {
            let root = certificate.certificate();
            command.env("NODE_EXTRA_CA_CERTS", &root).env("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", root);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Calls a method with `buf curl`, with a header for each of `headers`.
    pub fn buf_curl(
        &self,
        url: &str,
        options: &[&str],
        method: &str,
        body: &str,
        headers: &[String],
    ) -> Output {
        let mut command = Command::new(tool("buf"));
        // buf keeps a cache in the home folder.
        command.env("HOME", self.folder.path()).arg("curl").args(options);
        command.arg("--schema").arg(repository().join("proto"));
        command.args(["-H", &format!("kairos-caller-token: {}", self.caller_token)]);
        for header in headers {
            command.args(["-H", header]);
        }
        command.args(["-d", body, &format!("{url}/kairos.identity.v1.{method}")]).output().unwrap()
    }
}

/// Generates code from the `.proto` files by a template of buf.
pub fn buf_generate(template: &serde_json::Value, home: &Path) {
    let mut command = Command::new(tool("buf"));
    command.args(["generate", "--template", &template.to_string()]).current_dir(repository());
    // buf keeps a cache in the home folder.
    let generated = command.env("HOME", home).output().unwrap();
    assert!(generated.status.success(), "{}", stderr(&generated));
}

/// Returns how the usernames of one run of a program begin: each run has its own users.
pub fn new_users() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("user{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
