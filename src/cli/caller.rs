//! `kairos-identity caller`

use std::{fs, io, path::PathBuf};

use clap::{Args, Subcommand};

use super::{
    Failure,
    list::{Field, FormatFlag, List},
    output::{print_error, print_secret},
    reason,
};
use crate::{
    callers::{Callers, CallersError, CallersText, Role, ServiceToken, check_name},
    config::Settings,
    domain::io_reason,
    entropy::Entropy,
    grpc::layer::all_method_paths,
    input_file::{self, ShownPath},
    publish::LockedFile,
};

#[derive(Debug, Args)]
pub(super) struct Caller {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a caller with the rights of a role to the callers file, and print its service token
    ///
    /// The token is printed only once; the file contains only its hash. If it cannot be printed, the file is
    /// not changed. A running service uses the new file within 2 seconds.
    Add {
        /// The name of the caller
        #[arg(value_parser = parse_name)]
        name: String,
        /// bff: a backend that acts for users. agent: looks up users and verifies access tokens. operator:
        /// lists, changes and deletes users. monitor: reads the public keys. The file contains what the role
        /// grants, and can be edited
        #[arg(long, value_parser = parse_role)]
        role: Role,
        #[command(flatten)]
        file: CallersFlag,
    },
    /// List the callers
    ///
    /// The fields of a caller: name; number of service tokens; number of certificate names; methods; user
    /// fields. If the service would refuse the file, the reason follows the list, and the exit code is 1.
    List {
        #[command(flatten)]
        file: CallersFlag,
        #[command(flatten)]
        format: FormatFlag,
    },
    /// Give a caller a new service token, and print it
    ///
    /// The earlier token stays valid, so that the caller can change to the new one. Then remove the earlier
    /// one with --finish.
    Rotate {
        /// The name of the caller
        #[arg(value_parser = parse_name)]
        name: String,
        /// Remove all tokens of the caller except the newest
        #[arg(long)]
        finish: bool,
        #[command(flatten)]
        file: CallersFlag,
    },
    /// Remove a caller
    Remove {
        /// The name of the caller
        #[arg(value_parser = parse_name)]
        name: String,
        #[command(flatten)]
        file: CallersFlag,
    },
    /// Create a service token: prints the token to standard output, and its entry for the callers file to
    /// standard error
    ///
    /// The entry can be copied to the end of the file as it is. `caller add` writes an entry with rights into
    /// the file itself, and `caller rotate` adds a token to one.
    ///
    /// The token is printed only once and is stored nowhere. To replace a token, add the new hash to the
    /// callers file, give the caller the new token, and then remove the old hash.
    Token {
        /// The name of the caller in the callers file
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

/// The callers file of a command.
#[derive(Debug, Args)]
struct CallersFlag {
    /// The callers file [default: the setting callers.file]
    #[arg(long, value_name = "FILE")]
    callers: Option<PathBuf>,
}

fn parse_name(name: &str) -> Result<String, String> {
    check_name(name).map(|()| name.to_owned())
}

fn parse_role(name: &str) -> Result<Role, String> {
    Role::ALL
        .into_iter()
        .find(|role| role.name() == name)
        .ok_or_else(|| format!("expected one of {}", Role::ALL.map(Role::name).join(", ")))
}

impl CallersFlag {
    fn path(self, settings: &Settings) -> Result<PathBuf, Failure> {
        let path = self.callers.or_else(|| settings.callers.file.clone());
        path.ok_or_else(|| "no callers file is set: name it with --callers FILE".to_owned())
    }
}

impl Caller {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let token = ServiceToken::from_random(Entropy::system().bytes());
        match self.action {
            Action::Add { name, role, file } => {
                let file = CallersFile::lock(file.path(settings)?, MAY_BE_NEW)?;
                file.change_and_print(&token, |text| text.add(&name, role, token.hash()).map_err(reason))
            }
            Action::List { file, format } => list(&CallersFile::read(file.path(settings)?)?, format),
            Action::Rotate { name, finish: false, file } => {
                let file = CallersFile::lock(file.path(settings)?, !MAY_BE_NEW)?;
                file.change_and_print(&token, |text| text.add_token(&name, token.hash()).map_err(reason))
            }
            Action::Rotate { name, finish: true, file } => {
                let file = CallersFile::lock(file.path(settings)?, !MAY_BE_NEW)?;
                file.change(|text| text.remove_earlier_tokens(&name).map_err(reason))
            }
            Action::Remove { name, file } => {
                let file = CallersFile::lock(file.path(settings)?, !MAY_BE_NEW)?;
                file.change(|text| text.remove(&name).map_err(reason))
            }
            Action::Token { name } => print_entry(&name, &token),
        }
    }
}

/// Prints the token of a caller to standard output, and its entry without rights to standard error. If the
/// token cannot be printed, there is no entry for it.
fn print_entry(name: &str, token: &ServiceToken) -> Result<(), Failure> {
    print_secret(token.expose())?;
    for line in [
        "",
        "# Append this entry to the callers file (docs/CALLERS.md), and give the token, which is on",
        &format!("# standard output, to {name}."),
        &format!("[{name}]"),
        &format!("token-hashes = [\"{}\"]", token.hash()),
        "methods = []   # such as \"IdentityService/ResolveToken\"",
        "user-fields = []   # such as \"username\"",
    ] {
        print_error(line)?;
    }
    Ok(())
}

/// Prints the callers of a file. Fails after it has printed them if the service would refuse the file.
fn list(file: &CallersFile, format: FormatFlag) -> Result<(), Failure> {
    let mut list = List::new(format, ["name", "tokens", "certificates", "methods", "user_fields"]);
    for entry in CallersText::parse(&file.text).map_err(|error| file.failure(&error))?.entries() {
        let (tokens, certificates) = (Field::number(entry.tokens), Field::number(entry.certificates));
        let (methods, fields) = (Field::Texts(entry.methods), Field::Texts(entry.user_fields));
        if list.add([Field::text(entry.name), tokens, certificates, methods, fields])? {
            break;
        }
    }
    list.finish()?;
    parse_callers(&file.text).map(drop).map_err(|error| file.failure(&error))
}

/// For [`CallersFile::lock`]: the file need not exist yet.
const MAY_BE_NEW: bool = true;

/// A callers file that a command reads or changes. While a command changes it, others wait for their turn.
struct CallersFile {
    path: PathBuf,
    /// The text; empty if there is no file yet.
    text: String,
    /// `None` if the file is only read, or does not exist yet.
    locked: Option<LockedFile>,
}

impl CallersFile {
    /// Reads the file.
    fn read(path: PathBuf) -> Result<Self, Failure> {
        // A file behind a symbolic link is replaced, not the link.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let read = input_file::read_secret(&path).map_err(|error| format!("callers file: {error}"))?;
        if let Some(warning) = read.warning {
            tracing::warn!("callers file: {warning}");
        }
        Ok(Self { path, text: read.text, locked: None })
    }

    /// Reads the file under its lock. `may_be_new` allows that there is no such file yet.
    fn lock(path: PathBuf, may_be_new: bool) -> Result<Self, Failure> {
        let path = fs::canonicalize(&path).unwrap_or(path);
        match LockedFile::lock(&path) {
            Ok(locked) => Ok(Self { locked: Some(locked), ..Self::read(path)? }),
            Err(error) if may_be_new && error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path, text: String::new(), locked: None })
            }
            // Its error says that there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::read(path),
            Err(error) => Err(format!("callers file {}: {}", ShownPath(&path), io_reason(&error))),
        }
    }

    fn failure(&self, error: &dyn std::fmt::Display) -> Failure {
        format!("callers file {}: {error}", ShownPath(&self.path))
    }

    /// Returns the text after a change. Fails if the service would refuse the changed file.
    fn changed(
        &self,
        change: impl FnOnce(&mut CallersText) -> Result<(), Failure>,
    ) -> Result<String, Failure> {
        let mut text = CallersText::parse(&self.text).map_err(|error| self.failure(&error))?;
        change(&mut text).map_err(|error| self.failure(&error))?;
        let text = text.to_string();
        parse_callers(&text).map_err(|error| self.failure(&error))?;
        Ok(text)
    }

    /// Replaces the file. It keeps its owner and its mode; a new file can be read by its owner only.
    fn publish(&mut self, text: &str) -> Result<(), Failure> {
        let published = match &mut self.locked {
            Some(locked) => locked.replace(text.as_bytes()),
            None => LockedFile::create(&self.path, text.as_bytes()).map(|created| {
                self.locked = Some(created);
            }),
        };
        published.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                self.failure(&"not changed: another command has just created it; run this one again")
            }
            _ => self.failure(&format_args!("not changed: {}", io_reason(&error))),
        })
    }

    /// Changes and replaces the file.
    fn change(mut self, change: impl FnOnce(&mut CallersText) -> Result<(), Failure>) -> Result<(), Failure> {
        let text = self.changed(change)?;
        self.publish(&text)
    }

    /// Replaces the file and prints the token. If the token cannot be printed, the file gets its earlier text
    /// back, or is deleted if it is new: a token that no caller has must not stay valid.
    fn change_and_print(
        mut self,
        token: &ServiceToken,
        change: impl FnOnce(&mut CallersText) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (text, is_new) = (self.changed(change)?, self.locked.is_none());
        self.publish(&text)?;
        print_secret(token.expose()).map_err(|error| {
            let undone = match &self.locked {
                Some(created) if is_new => created.delete().map_err(|error| self.failure(&error)),
                _ => {
                    let earlier = std::mem::take(&mut self.text);
                    self.publish(&earlier)
                }
            };
            match undone {
                Ok(()) => format!("{error}: the callers file was not changed"),
                Err(undone) => format!("{error}; the new token is valid, but could not be printed: {undone}"),
            }
        })
    }
}

/// Parses the text of a callers file, whose method patterns must match methods of this API.
pub(super) fn parse_callers(text: &str) -> Result<Callers, CallersError> {
    let methods = all_method_paths();
    let methods: Vec<_> = methods.iter().map(String::as_str).collect();
    Callers::parse(text, &methods)
}
