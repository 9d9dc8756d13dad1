//! What commands print: to a pipe that is closed, to a full disk, and when the text is foreign.

use std::{
    fs::File,
    io,
    process::{Command, Output, Stdio},
};

use kairos_identity::callers::Callers;

use crate::support::{
    engine::{Engine, TestDatabase},
    program::{error_line, run, stderr, stdout},
};

/// Commands that print to standard output and change nothing, in a folder with a store.
const PRINTING: [&[&str]; 10] = [
    &["serve", "--print-config"],
    &["migrate"],
    &["keys", "list"],
    &["user", "list"],
    &["user", "show", "ada@example.com"],
    &["user", "unlock", "ada@example.com"],
    &["audit"],
    &["caller", "token", "bff"],
    &["--help"],
    &["serve", "--help"],
];

/// The one of them that prints a secret.
const PRINTING_A_SECRET: [&str; 3] = ["caller", "token", "bff"];

/// Commands that print what they have changed.
const CHANGING: [&[&str]; 7] = [
    &["keys", "rotate"],
    &["keys", "rotate", "--revoke-earlier"],
    &["user", "unverify", "ada@example.com"],
    &["user", "verify", "ada@example.com"],
    &["user", "disable", "ada@example.com"],
    &["user", "enable", "ada@example.com"],
    &["user", "end-sessions", "ada@example.com"],
];

/// Returns a store with a key and one user.
fn store() -> TestDatabase {
    let store = TestDatabase::new(Engine::Sqlite);
    for command in [&["migrate"][..], &["keys", "rotate"]] {
        let output = run_with(&store, command, Stdio::piped());
        assert!(output.status.success(), "{output:?}");
    }
    add_user(&store, 1, "ada", "ada@example.com");
    store
}

/// Adds a user by SQL.
fn add_user(store: &TestDatabase, id: u32, username: &str, email: &str) {
    let (token, at) = (format!("00000000-0000-4000-8000-{id:012}"), "2026-01-01 00:00:00.000000");
    store.execute(&format!(
        "INSERT INTO core_user (username, username_key, email, password, is_verified, auth_token, created_at, updated_at) \
         VALUES ('{username}', '@{token}', '{email}', '!', 1, '{token}', '{at}', '{at}')"
    ));
}

/// Runs a command on a store with this standard output.
fn run_with(store: &TestDatabase, arguments: &[&str], output: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(arguments).env_clear().env("KAIROS_IDENTITY_DATABASE_URL", store.url());
    command.stdout(output).stderr(Stdio::piped()).output().unwrap()
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let store = store();
    for arguments in PRINTING.iter().chain(&CHANGING) {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = run_with(&store, arguments, writer);
        let errors = stderr(&output);
        if *arguments == PRINTING_A_SECRET {
            // The secret is shown once, and would be lost.
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(errors, "error: cannot write to standard output: Broken pipe\n");
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked") && !errors.contains("error: "), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_full_disk_ends_every_command_with_one_error() {
    let store = store();
    let run = |arguments: &[&str]| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        error_line(1, &run_with(&store, arguments, full))
    };
    let failure = "cannot write to standard output: No space left on device";
    for arguments in PRINTING {
        let error = run(arguments);
        assert!(error.ends_with(failure), "{arguments:?}: {error}");
    }
    for arguments in CHANGING {
        let error = run(arguments);
        assert!(
            error.ends_with(&format!("{failure}. The change was made before and stays")),
            "{arguments:?}: {error}"
        );
    }
    // The changes were made.
    let events = stdout(&run_with(&store, &["audit"], Stdio::piped()));
    for kind in ["user_disabled", "user_enabled"] {
        assert!(events.contains(kind), "{kind}: {events}");
    }
}

#[test]
fn a_deletion_whose_user_cannot_be_shown_is_not_made() {
    let store = store();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = error_line(1, &run_with(&store, &["user", "delete", "--yes", "ada@example.com"], full));
    assert!(error.ends_with("No space left on device"), "{error}");
    assert_eq!(store.count("core_user"), 1);
}

#[test]
fn foreign_text_controls_no_terminal() {
    let store = store();
    add_user(&store, 2, "x\u{1b}]0;title\u{7}\nforged\tline\u{9b}2J", "bob@example.com");
    for arguments in [&["user", "list"][..], &["user", "show", "bob@example.com"]] {
        let output = run_with(&store, arguments, Stdio::piped());
        let printed = stdout(&output);
        assert!(printed.contains("x\\u{1b}]0;title\\u{7}\\nforged\\tline\\u{9b}2J"), "{printed:?}");
        assert!(!printed.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{printed:?}");
    }
    let refused = run_with(&store, &["user", "show", "x\u{1b}@\u{7}y"], Stdio::piped());
    assert!(!stderr(&refused).contains('\u{7}'), "{:?}", stderr(&refused));
}

#[test]
fn the_printed_entry_of_a_caller_can_be_appended_to_the_file_as_it_is() {
    let mut file = String::new();
    for name in ["bff", "agent"] {
        let output = run(&["caller", "token", name]);
        assert!(stdout(&output).starts_with("kst_"), "{output:?}");
        file += &stderr(&output);
    }
    let callers = Callers::parse(&file, &[]).unwrap();
    assert_eq!(callers.names(), ["agent", "bff"], "{file}");
}

#[test]
fn a_list_is_a_table_on_a_terminal_lines_in_a_pipe_and_json_on_request() {
    let store = store();
    add_user(&store, 2, "zo\u{eb} \u{674e}", "longer-name@example.com");
    let at = "2026-01-01T00:00:00.000000Z";
    let token = |id: u32| format!("00000000-0000-4000-8000-{id:012}");
    let printed = |arguments: &[&str]| stdout(&run_with(&store, arguments, Stdio::piped()));

    let lines = format!(
        "{}\tverified\t{at}\tada@example.com\tada\n{}\tverified\t{at}\tlonger-name@example.com\tzo\u{eb} \u{674e}\n",
        token(1),
        token(2)
    );
    assert_eq!(printed(&["user", "list"]), lines);
    assert_eq!(printed(&["user", "list", "--format", "tabs"]), lines);
    let table = format!(
        "AUTH_TOKEN                            STATE     CREATED_AT                   EMAIL                    USERNAME\n\
         {}  verified  {at}  ada@example.com          ada\n\
         {}  verified  {at}  longer-name@example.com  zo\u{eb} \u{674e}\n",
        token(1),
        token(2)
    );
    assert_eq!(printed(&["user", "list", "--format", "table"]), table);
    let objects = printed(&["user", "list", "--format", "json"]);
    let first: serde_json::Value = serde_json::from_str(objects.lines().next().unwrap()).unwrap();
    let expected = serde_json::json!({
        "auth_token": token(1), "state": "verified", "created_at": at, "email": "ada@example.com", "username": "ada",
    });
    assert_eq!((first, objects.lines().count()), (expected, 2));

    for (arguments, names) in [
        (&["audit"][..], &["at", "kind", "outcome", "user", "caller", "address"][..]),
        (&["keys", "list"], &["id", "created_at", "signs_from", "verifies_until"]),
        (&["keys", "secret", "list"], &["id", "state", "values"]),
    ] {
        let json = printed(&[arguments, &["--format", "json"]].concat());
        assert!(!json.is_empty(), "{arguments:?}");
        for line in json.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(names.iter().all(|name| record.get(name).is_some()), "{record}");
        }
        let table = printed(&[arguments, &["--format", "table"]].concat());
        let header: Vec<_> =
            table.lines().next().unwrap().split_whitespace().map(str::to_lowercase).collect();
        assert_eq!(header, names);
    }
}

#[test]
fn a_table_on_a_terminal_has_a_bold_header_unless_no_color_is_set() {
    let store = store();
    let on_terminal = |variables: &str| {
        let program = env!("CARGO_BIN_EXE_kairos-identity");
        let script = format!("{variables} '{program}' user list");
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]);
        terminal.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
        stdout(
            &terminal.env("KAIROS_IDENTITY_DATABASE_URL", store.url()).stdin(Stdio::null()).output().unwrap(),
        )
    };
    let colored = on_terminal("");
    assert!(
        colored.starts_with("\u{1b}[1mAUTH_TOKEN ") && colored.contains("USERNAME\u{1b}[0m\r\n"),
        "{colored:?}"
    );
    assert!(colored.contains("ada@example.com  ada\r\n"), "{colored:?}");
    for plain in [on_terminal("NO_COLOR=1"), on_terminal("TERM=dumb")] {
        assert!(plain.starts_with("AUTH_TOKEN ") && !plain.contains('\u{1b}'), "{plain:?}");
    }
}
