//! Imports from Django, tested against databases that real Django wrote: those of `tests/fixtures/django`,
//! and new ones.

mod again;
mod conflicts;
mod document;
mod follow;
mod logins;
mod moves;
mod old_links;
mod resume;
mod sources;
mod way_back;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    engine::{Engine, TestDatabase},
    tools::{python_path, repository},
};

/// Form of the table `core_user` in a Django backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// The form in the documentation of the backend.
    Documented,
    /// The form that the code of the backend created: without `created_at` and `updated_at`.
    WithoutTimestamps,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::WithoutTimestamps => "without_timestamps",
        }
    }
}

/// A user of a Django backend, with the password in plaintext.
#[derive(Debug, Clone)]
pub struct DjangoUser {
    pub id: i64,
    pub email: String,
    pub username: String,
    pub password: Option<String>,
    pub is_verified: bool,
    pub auth_token: String,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub hasher: String,
    pub stored: String,
    pub note: String,
}

/// A database of a Django backend, and the users that it is known to hold.
pub struct Django {
    database: TestDatabase,
    pub truth: Vec<DjangoUser>,
    folder: TempDir,
}

impl Django {
    /// One that real Django makes now, with a seed of its own; `more` are arguments of `make_fixtures.py`.
    pub fn fresh(engine: Engine, model: Model, more: &[&str]) -> Self {
        let database = TestDatabase::new(engine);
        let folder = tempfile::tempdir().unwrap();
        let truth = folder.path().join("truth.jsonl");
        let url = database.url().replace("sqlite://", "sqlite:///").replace("sqlite:////", "sqlite:///");
        let output = Command::new(python_path())
            .arg(fixtures().join("make_fixtures.py"))
            .args(["--model", model.name(), "--db", &url, "--truth", truth.to_str().unwrap()])
            .args(more)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let truth = read_truth(&fs::read_to_string(truth).unwrap());
        Self { database, truth, folder }
    }

    /// The one that is kept in the repository.
    pub fn kept(model: Model) -> Self {
        let database = TestDatabase::new(Engine::Sqlite);
        let source = fixtures().join(format!("{}.sqlite3", model.name()));
        fs::write(database.url().strip_prefix("sqlite://").unwrap(), fs::read(source).unwrap()).unwrap();
        let truth = fixtures().join(format!("{}.truth.jsonl", model.name()));
        let truth = read_truth(&fs::read_to_string(truth).unwrap());
        Self { database, truth, folder: tempfile::tempdir().unwrap() }
    }

    /// Creates a database of the documented form with `count` ordinary users, whose passwords are stored in
    /// plaintext.
    pub fn small(engine: Engine, count: usize) -> Self {
        Self::fresh(engine, Model::Documented, &["--only-bulk", "--count", &count.to_string()])
    }

    /// Returns a SQLite database whose file does not exist yet.
    pub fn empty() -> Self {
        Self {
            database: TestDatabase::new(Engine::Sqlite),
            truth: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// Runs SQL statements in the database, as Django would.
    pub fn execute(&self, sql: &str) {
        self.database.execute(sql);
    }

    /// Returns a path for a file of the test, in a temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Options that resolve every conflict, so that as many users as possible are imported.
pub const RESOLVE_ALL_CONFLICTS: [&str; 6] = [
    "--on-email-conflict",
    "keep-verified",
    "--on-username-conflict",
    "suffix",
    "--on-token-conflict",
    "renew",
];

/// Runs a command of the binary with the lowest hash cost.
pub fn kairos(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Returns the command of [`kairos`], not yet started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(arguments).env("KAIROS_IDENTITY_PASSWORD_COST", "4");
    command
}

/// Runs an import that must succeed; returns its standard output.
#[track_caller]
pub fn import(from: &Django, to: &TestDatabase, more: &[&str]) -> String {
    let arguments = [&["import", "django", "--from", from.url(), "--to", to.url()], more].concat();
    let output = kairos(&arguments);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with exit code 1 and one error line; returns that line and the standard
/// output.
#[track_caller]
pub fn refused(arguments: &[&str]) -> (String, String) {
    let output = kairos(arguments);
    let errors = text(&output.stderr);
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{errors}");
    (lines[0].to_owned(), text(&output.stdout))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Returns one line per user of a store with all columns except the id and the hash, sorted by email.
pub fn users(database: &TestDatabase) -> Vec<String> {
    let token = match database.engine() {
        Engine::Sqlite => "auth_token",
        Engine::Postgres => "auth_token::text",
    };
    let time = |column: &str| match database.engine() {
        Engine::Sqlite => column.to_owned(),
        Engine::Postgres => format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
    };
    let mut users = database.rows(&format!(
        "SELECT replace(replace(email || '|' || username || '|' || username_key || '|' || CASE WHEN is_verified THEN '1' ELSE '0' END || '|' || {token} \
         || '|' || {} || '|' || {}, chr(10), ' '), chr(9), ' ') AS value FROM core_user",
        time("created_at"),
        time("updated_at")
    ).replace("chr(", if database.engine() == Engine::Sqlite { "char(" } else { "chr(" }));
    users.sort();
    users
}

fn read_truth(text: &str) -> Vec<DjangoUser> {
    let user = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        DjangoUser {
            id: row["id"].as_i64().unwrap(),
            email: text("email").unwrap(),
            username: text("username").unwrap(),
            password: text("password"),
            is_verified: row["is_verified"].as_bool().unwrap(),
            auth_token: text("auth_token").unwrap(),
            created_at: text("created_at"),
            updated_at: text("updated_at"),
            hasher: text("hasher").unwrap(),
            stored: text("stored").unwrap(),
            note: text("note").unwrap(),
        }
    };
    text.lines().map(user).collect()
}

/// Returns the folder of the databases that real Django wrote, and of the scripts that write and check them.
/// Its README describes each file.
fn fixtures() -> PathBuf {
    repository().join("tests/fixtures/django")
}
