//! Imports from Django, tested against databases that real Django wrote: those of `tests/fixtures/django`,
//! and new ones.

mod again;
mod conflicts;
mod follow;
mod logins;
mod moves;
mod old_links;
mod resume;
mod rows;
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
    program::{error_line, program, stderr, stdout},
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
    /// The algorithm of the stored hash, or `plaintext` or `unusable`.
    pub hasher: String,
    /// The text in the column `password`.
    pub stored: String,
    /// What is special about the row.
    pub note: String,
}

impl DjangoUser {
    /// True if an import does not keep the plaintext password as it is: an empty one cannot be used, and one
    /// that is a complete hash counts as that hash.
    pub fn is_password_changed(&self) -> bool {
        self.stored.is_empty() || self.note.contains("complete bcrypt_sha256 hash")
    }
}

/// A database of a Django backend, and the users that it is known to hold.
pub struct Django {
    database: TestDatabase,
    pub truth: Vec<DjangoUser>,
    folder: TempDir,
}

impl Django {
    /// Creates a database with real Django, with a new seed; `more` are arguments of `make_fixtures.py`.
    pub fn fresh(engine: Engine, model: Model, more: &[&str]) -> Self {
        let database = TestDatabase::new(engine);
        let folder = tempfile::tempdir().unwrap();
        let truth = folder.path().join("truth.jsonl");
        let output = Command::new(python_path())
            .arg(fixtures().join("make_fixtures.py"))
            .args(["--model", model.name(), "--db", database.url(), "--truth", truth.to_str().unwrap()])
            .args(more)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let truth = read_truth(&fs::read_to_string(truth).unwrap());
        Self { database, truth, folder }
    }

    /// Copies the fixture of this form: a database that is kept in the repository, and its users.
    pub fn from_fixture(model: Model) -> Self {
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

/// The ids of the rows of both fixtures whose emails are one mailbox: they differ in case, in Unicode
/// normalization, or in the form of the domain. The first of each pair is the one that
/// [`RESOLVE_ALL_CONFLICTS`] keeps; the other is left out.
pub const ROWS_OF_ONE_EMAIL: [[i64; 2]; 4] = [[140, 141], [146, 147], [139, 138], [154, 153]];

/// The number of users that an import of either fixture with [`RESOLVE_ALL_CONFLICTS`] imports: all 230 but
/// one of each pair in [`ROWS_OF_ONE_EMAIL`].
pub const IMPORTED_USERS: usize = 226;

/// Returns the ids of the rows of the fixtures that [`RESOLVE_ALL_CONFLICTS`] leaves out.
pub fn left_out() -> [i64; 4] {
    ROWS_OF_ONE_EMAIL.map(|[_, left_out]| left_out)
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
    program(arguments).output().unwrap()
}

/// Runs an import that must succeed; returns its standard output.
#[track_caller]
pub fn import(from: &Django, to: &TestDatabase, more: &[&str]) -> String {
    let arguments = [&["import", "django", "--from", from.url(), "--to", to.url()], more].concat();
    let output = kairos(&arguments);
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// Runs a command that must fail with exit code 1 and one error line; returns that line and the standard
/// output.
#[track_caller]
pub fn refused(arguments: &[&str]) -> (String, String) {
    let output = kairos(arguments);
    (error_line(1, &output), stdout(&output))
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
    // A tab or a line feed in a username would split the row. SQLite calls `chr` `char`.
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
