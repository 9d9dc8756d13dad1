//! Runs the command blocks of the documents as written, each document in one shell and in a new folder.
//!
//! Only what a reader replaces too is replaced: names of servers, and ports, since tests run at the same
//! time. Commands whose error the document shows must fail. A line that begins with `kairos-identity serve`
//! runs in the background until the end. Programs in Python and JavaScript run as well. A block of another
//! language whose first line is `# NAME` becomes the file NAME.

use std::{fmt::Write, fs, net::TcpListener, os::unix::fs::symlink, path::Path, process::Command};

use crate::support::{
    engine::{Engine, TestDatabase},
    markdown::blocks,
    pgbouncer::PgBouncer,
    postgres::Postgres,
    program::{stderr, stdout},
    tools::repository,
};

/// Documents whose commands are not run here.
const ELSEWHERE: [(&str, &str); 3] = [
    ("CONTRIBUTING.md", "its commands take minutes to hours; script_help::* compares them with the scripts"),
    (
        "docs/systemd.md",
        "scripts/systemd-walk runs its commands under a systemd of its own, which needs root",
    ),
    ("tests/fixtures/django/README.md", "creates the fixtures"),
];

/// Stops the script if a command of a block fails, and the service at the end. Variables are exported, for
/// the blocks that run in a shell of their own.
const PRELUDE: &str = "set -eua\ntrap 'test -z \"${service-}\" || kill \"$service\"' EXIT\n";

/// The `auth_token` in the examples of README.md, and the command that prints the one of the only user.
const AUTH_TOKEN: &str = "28603cbd-c749-438a-9e7b-e25340f97134";
const USERS_AUTH_TOKEN: &str = "auth_token=$(kairos-identity user list | grep -oE '[0-9a-f-]{36}')";

/// Returns a free port of the loopback interface.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// A document whose commands are run.
struct Walkthrough {
    path: &'static str,
    /// Commands that a reader has run before.
    before: &'static str,
    /// Blocks that contain one of these texts are left out.
    left_out: &'static [&'static str],
    /// Blocks that contain one of these texts fail with exit code 1, as the document says.
    failing: &'static [&'static str],
    /// Blocks that contain one of these texts are one command that runs until it is stopped with Ctrl-C.
    stopped: &'static [&'static str],
    /// Further texts of the document, and what replaces them.
    replaced: Vec<(&'static str, String)>,
    database: TestDatabase,
}

impl Walkthrough {
    fn new(path: &'static str, database: Engine) -> Self {
        Self {
            path,
            before: "",
            left_out: &[],
            failing: &[],
            stopped: &[],
            replaced: Vec::new(),
            database: TestDatabase::new(database),
        }
    }

    /// Replaces the servers and the ports of the document.
    fn replaced(&self, text: &str, ports: &[String; 3]) -> String {
        let url = self.database.url();
        let server = url.rsplit_once('/').map_or(url, |(server, _)| server);
        let mut text = text.to_owned();
        for (documented, own) in &self.replaced {
            text = text.replace(documented, own);
        }
        text.replace("postgres://kairos:PASSWORD@db.example/kairos", url)
            .replace("postgres://kairos@db.example/kairos", url)
            .replace("postgres://kairos@db.example", server)
            .replace("postgres://postgres@db.example", server)
            .replace("--owner kairos", "--owner postgres")
            .replace("0.0.0.0:50051", "127.0.0.1:50051")
            // No instance runs meanwhile.
            .replace("keys secret rotate\n", "keys secret rotate --wait 0s\n")
            // The value that the document got; the reader has another one.
            .replace(&format!("auth_token={AUTH_TOKEN}"), USERS_AUTH_TOKEN)
            .replace("50051", &ports[0])
            .replace("50080", &ports[1])
            .replace("50090", &ports[2])
    }

    /// Returns the script of the document.
    fn script(&self, ports: &[String; 3]) -> String {
        let document = fs::read_to_string(repository().join(self.path)).unwrap();
        let mut script = PRELUDE.to_owned();
        add_commands(&mut script, self.before, "before");
        let blocks = blocks(&document);
        for (number, block) in blocks.iter().enumerate() {
            let is_one_of = |texts: &[&str]| texts.iter().any(|text| block.text.contains(text));
            if is_one_of(self.left_out) {
                continue;
            }
            let name = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
            match (block.language.as_str(), name) {
                // The document shows the error that the commands print.
                ("sh", _) if blocks.get(number + 1).is_some_and(|next| next.text.starts_with("ERROR:")) => {
                    add_input(&mut script, "cat > commands", &block.text);
                    script += "if bash -eu commands; then echo 'no error' >&2; exit 1; fi\n";
                }
                ("sh", _) if is_one_of(self.failing) => {
                    add_input(&mut script, "cat > commands", &block.text);
                    script += "code=0; bash -eu commands || code=$?; test $code = 1\n";
                }
                // bash becomes the command, so that the exit code is that of the command.
                ("sh", _) if is_one_of(self.stopped) => {
                    add_input(&mut script, "cat > command", &block.text);
                    script += "timeout --preserve-status --signal INT 4 bash -c \"$(cat command)\"\n";
                }
                ("sh", _) => add_commands(&mut script, &block.text, &format!("block {number}")),
                ("toml", Some(name)) => add_input(&mut script, &format!("cat > {name}"), &block.text),
                ("python", _) => add_input(&mut script, "python3 -", &block.text),
                ("js", _) => add_input(&mut script, "node --input-type=module -", &block.text),
                _ => {}
            }
        }
        self.replaced(&script, ports)
    }

    /// Runs the document and asserts that each command succeeds.
    fn run(&self) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["proto", "examples", ".tools"] {
            symlink(repository().join(name), folder.path().join(name)).unwrap();
        }
        let ports = [free_port(), free_port(), free_port()];
        let binary = Path::new(env!("CARGO_BIN_EXE_kairos-identity")).parent().unwrap();
        let tools = repository().join(".tools/venv/bin");
        let output = Command::new("bash")
            .args(["-c", &self.script(&ports)])
            .current_dir(&folder)
            .env_clear()
            .env("PATH", format!("{}:{}:/usr/local/bin:/usr/bin:/bin", binary.display(), tools.display()))
            .env("HOME", folder.path())
            .env("KAIROS_IDENTITY_PASSWORD_COST", "4")
            .env("KAIROS_IDENTITY_PASSWORD_INSECURE_LOW_COST", "true")
            .env("KAIROS_IDENTITY_SERVER_LISTEN", format!("127.0.0.1:{}", ports[0]))
            .env("KAIROS_IDENTITY_HTTP_LISTEN", format!("127.0.0.1:{}", ports[1]))
            .env("KAIROS_IDENTITY_TELEMETRY_LISTEN", format!("127.0.0.1:{}", ports[2]))
            .output()
            .unwrap();
        let log = fs::read_to_string(folder.path().join("serve.log")).unwrap_or_default();
        let (printed, errors) = (stdout(&output), stderr(&output));
        assert!(output.status.success(), "{}:\n{printed}\n{errors}\n{log}", self.path);
    }
}

/// Adds a command whose standard input is `text`.
fn add_input(script: &mut String, command: &str, text: &str) {
    let _ = write!(script, "{command} <<'KAIROS_FILE'\n{text}KAIROS_FILE\n");
}

/// Adds the commands of a block. A command that serves runs in the background; the next command waits until
/// it logs that it serves. The port alone does not tell: it is bound before the migrations.
fn add_commands(script: &mut String, commands: &str, name: &str) {
    let _ = writeln!(script, "echo '== {name}' >&2");
    let mut lines = commands.lines();
    while let Some(line) = lines.next() {
        let is_service = line.starts_with("kairos-identity serve") && !line.contains("--print-config");
        // scripts/setup has installed it; a test uses no network.
        if line.contains("pip install") {
            continue;
        }
        if !is_service {
            let _ = writeln!(script, "{line}");
            continue;
        }
        let mut command = line.to_owned();
        while let Some(start) = command.strip_suffix('\\') {
            command = format!("{start}{}", lines.next().unwrap_or_default());
        }
        let _ = write!(
            script,
            "{command} > serve.log 2>&1 &\nservice=$!\n\
             for try in $(seq 300); do\n  \
             if grep -q 'Serving gRPC on' serve.log; then break; fi\n  \
             kill -0 \"$service\"\n  sleep 0.1\ndone\n\
             grep -q 'Serving gRPC on' serve.log\n"
        );
    }
}

#[test]
fn the_readme_shows_a_user_from_the_registration_to_the_access_token() {
    let walkthrough = Walkthrough {
        before: "kairos-identity serve",
        left_out: &["scripts/run", "export KAIROS_IDENTITY_CONFIG"],
        ..Walkthrough::new("README.md", Engine::Sqlite)
    };
    walkthrough.run();
}

#[test]
fn the_guide_to_production_ends_with_a_call_of_each_caller() {
    Walkthrough::new("docs/production.md", Engine::Postgres).run();
}

#[test]
fn the_production_settings_are_the_same_in_both_documents() {
    let settings = |path: &str| {
        let document = fs::read_to_string(repository().join(path)).unwrap();
        let found = blocks(&document).into_iter().find(|block| block.text.starts_with("# kairos.toml\n"));
        found.unwrap_or_else(|| panic!("{path} has no kairos.toml")).text
    };
    assert_eq!(settings("README.md"), settings("docs/production.md"));

    // The test of docs/production.md runs them.
    let document = |path: &str| blocks(&fs::read_to_string(repository().join(path)).unwrap());
    let readme =
        document("README.md").into_iter().find(|block| block.text.contains("KAIROS_IDENTITY_CONFIG"));
    let guide: String = document("docs/production.md").into_iter().map(|block| block.text).collect();
    for command in readme.unwrap().text.lines() {
        assert!(
            guide.lines().any(|line| line.starts_with(command)),
            "docs/production.md does not run {command}"
        );
    }
}

#[test]
fn the_page_of_callers_creates_a_caller_that_can_call() {
    Walkthrough::new("docs/CALLERS.md", Engine::Sqlite).run();
}

#[test]
fn the_page_of_calls_over_http_works_with_curl() {
    Walkthrough { before: "kairos-identity serve", ..Walkthrough::new("docs/http.md", Engine::Sqlite) }.run();
}

#[test]
fn the_commands_of_the_page_about_the_audit_trail_succeed() {
    let before = "kairos-identity serve\n\
                  grpcurl -plaintext -d '{\"username\": \"Ada\", \"email\": \"ada@example.com\", \"password\": \"plum-Voyage-84-kettle\"}' \
                  127.0.0.1:50051 kairos.identity.v1.IdentityService/Register";
    Walkthrough { before, ..Walkthrough::new("docs/AUDIT.md", Engine::Sqlite) }.run();
}

#[test]
fn backups_of_both_engines_are_restored() {
    let before = "kairos-identity serve\n\
                  kill \"$service\"; wait \"$service\" || true; service=\n\
                  kairos-identity migrate --database-url postgres://kairos@db.example/kairos";
    Walkthrough { before, ..Walkthrough::new("docs/backup.md", Engine::Postgres) }.run();
}

#[test]
fn the_metrics_are_read_as_their_page_says() {
    Walkthrough { before: "kairos-identity serve", ..Walkthrough::new("docs/metrics.md", Engine::Sqlite) }
        .run();
}

#[test]
fn an_upgrade_migrates_the_database() {
    Walkthrough::new("docs/upgrade.md", Engine::Sqlite).run();
}

#[test]
fn the_guide_for_django_leads_to_the_service_and_back() {
    let fixture = repository().join("tests/fixtures/django/documented.sqlite3");
    Walkthrough {
        before: "cp FIXTURE django.sqlite3",
        replaced: vec![("FIXTURE", fixture.display().to_string())],
        // Rows are in conflict, and the operator must decide.
        failing: &["--dry-run"],
        stopped: &["--follow", "ACCEPT_AUTH_TOKEN_UNTIL"],
        ..Walkthrough::new("docs/moving-from-django.md", Engine::Postgres)
    }
    .run();
}

#[test]
fn the_page_of_pgbouncer_ends_with_a_service_behind_it() {
    let cluster = Postgres::shared();
    let database = cluster.create_database();
    let pgbouncer = PgBouncer::start(cluster, "postgres", 3);
    Walkthrough {
        before: "openssl rand -base64 32 > secret.key && chmod 600 secret.key\n\
                 export KAIROS_IDENTITY_SECRET_KEY_FILE=secret.key",
        replaced: vec![
            ("postgres://kairos@db.example/kairos", database.url().to_owned()),
            ("postgres://kairos@pgbouncer.example:6432/kairos", pgbouncer.url(&database)),
        ],
        ..Walkthrough::new("docs/pgbouncer.md", Engine::Sqlite)
    }
    .run();
}

#[test]
fn the_commands_of_every_document_are_run() {
    let list = Command::new("git").args(["ls-files", "*.md"]).current_dir(repository()).output().unwrap();
    assert!(list.status.success() && stdout(&list).contains("README.md\n"), "{}", stderr(&list));
    let run = fs::read_to_string(repository().join("tests/it/document_commands.rs")).unwrap();
    for path in stdout(&list).lines() {
        let document = fs::read_to_string(repository().join(path)).unwrap();
        let has_commands = blocks(&document).iter().any(|block| block.language == "sh");
        let is_run = run.contains(&format!("Walkthrough::new(\"{path}\", "));
        let is_elsewhere = ELSEWHERE.iter().any(|(elsewhere, _)| *elsewhere == path);
        assert!(!has_commands || is_run || is_elsewhere, "{path} has commands that no test runs");
    }
}
