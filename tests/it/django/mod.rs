//! Imports from Django, tested against databases that real Django wrote: those of `tests/fixtures/django`, and new ones.

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

/// The two forms of Django's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// As the documentation has it.
    Documented,
    /// As the code made it.
    Actual,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Actual => "actual",
        }
    }
}

/// A user of a Django backend, and what they type.
#[derive(Debug, Clone)]
pub struct Person {
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

/// A database of a Django backend, with the truth about everybody in it.
pub struct Django {
    database: TestDatabase,
    pub truth: Vec<Person>,
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

    /// A small one of the documented form: `count` ordinary users with plaintext passwords.
    pub fn small(engine: Engine, count: usize) -> Self {
        Self::fresh(engine, Model::Documented, &["--only-bulk", "--count", &count.to_string()])
    }

    /// A file that is still to be made.
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

    /// Runs statements in it, as Django would.
    pub fn execute(&self, sql: &str) {
        self.database.execute(sql);
    }

    /// A path for a file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The options that take over whoever can be.
pub const TAKE_ALL: [&str; 6] = [
    "--on-email-conflict",
    "keep-verified",
    "--on-username-conflict",
    "suffix",
    "--on-token-conflict",
    "renew",
];

/// Runs a command of the binary at the lowest cost of a hash.
pub fn kairos(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The same, to be started by the caller.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(arguments).env("KAIROS_IDENTITY_PASSWORD_COST", "4");
    command
}

/// Imports what must succeed; gives what was printed.
#[track_caller]
pub fn import(from: &Django, to: &TestDatabase, more: &[&str]) -> String {
    let arguments = [&["import", "django", "--from", from.url(), "--to", to.url()], more].concat();
    let output = kairos(&arguments);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Imports what must fail with one line; gives that and what was printed.
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

/// What the columns of every user of a store say, in the order of their email; hashes are not among it.
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

fn read_truth(text: &str) -> Vec<Person> {
    let person = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        Person {
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
    text.lines().map(person).collect()
}

/// The folder of the databases that real Django wrote and of the scripts that write and check them; its README describes each file.
fn fixtures() -> PathBuf {
    repository().join("tests/fixtures/django")
}
