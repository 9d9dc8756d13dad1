//! The command line flags, as the settings declare them.

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::{env, fmt, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{
    error::ConfigError,
    section_list::settings,
    setting::{FILE_VARIABLE, Flag, Setting},
    settings::Settings,
    sources::Sources,
};

/// Flags of every command: the settings file, the database and the log.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreFlags {
    /// The settings file (TOML); docs/CONFIG.md lists every setting with its KAIROS_IDENTITY_* variable
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// The flags of settings.
    #[command(flatten)]
    pub settings: SettingFlags<true>,
}

/// The key of a setting, the name of its flag, and the text of its value.
type GivenFlag = (String, &'static str, String);

/// Flags of `serve`.
pub type ServeFlags = SettingFlags<false>;

/// The given flags of settings: those that every command has if `IS_GLOBAL` is true, otherwise those that
/// only `serve` has. `Debug` does not show their values, which may contain passwords.
#[derive(Clone, Default)]
pub struct SettingFlags<const IS_GLOBAL: bool> {
    given: Vec<GivenFlag>,
}

impl<const IS_GLOBAL: bool> SettingFlags<IS_GLOBAL> {
    /// Sets the setting `key` to the text of a command's own flag `name`.
    ///
    /// # Panics
    /// If there is no such setting with a flag for these commands.
    pub fn set(&mut self, key: &str, name: &'static str, text: &str) {
        assert!(declared(IS_GLOBAL).any(|(setting, _)| setting.key() == key), "{key} has no flag");
        self.given.push((key.to_owned(), name, text.to_owned()));
    }
}

impl<const IS_GLOBAL: bool> fmt::Debug for SettingFlags<IS_GLOBAL> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.iter().map(|(_, flag, _)| flag)).finish()
    }
}

impl<const IS_GLOBAL: bool> Args for SettingFlags<IS_GLOBAL> {
    fn augment_args(command: Command) -> Command {
        let mut flags: Vec<_> = declared(IS_GLOBAL).collect();
        // The help lists the flags without a value last: they allow unsafe settings.
        flags.sort_by_key(|(_, flag)| flag.value_name.is_none());
        command.args(flags.into_iter().map(|(setting, flag)| argument(setting, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const IS_GLOBAL: bool> FromArgMatches for SettingFlags<IS_GLOBAL> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = declared(IS_GLOBAL).filter_map(|(setting, flag)| {
            let text = match flag.value_name {
                Some(_) => matches.get_one::<String>(flag.name).cloned(),
                None => matches.get_flag(flag.name).then(|| "true".to_owned()),
            }?;
            Some((setting.key(), flag.name, text))
        });
        Ok(Self { given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns the settings with a flag of every command if `is_global` is set, and otherwise those with a flag
/// of `serve`.
fn declared(is_global: bool) -> impl Iterator<Item = (&'static Setting, &'static Flag)> {
    let flags = settings().filter_map(|setting| Some((setting, setting.flag.as_ref()?)));
    flags.filter(move |(_, flag)| flag.is_global == is_global)
}

/// Returns the command-line argument of a setting. Its help states the default.
fn argument(setting: &Setting, flag: &'static Flag) -> Arg {
    let argument = Arg::new(flag.name).long(flag.name).global(flag.is_global);
    let argument = if flag.is_global { argument.help_heading("Settings") } else { argument };
    match flag.value_name {
        None => argument.action(ArgAction::SetTrue).help(flag.help),
        Some(name) if setting.default.is_empty() => argument.value_name(name).help(flag.help),
        Some(name) => argument.value_name(name).help(format!("{} [default: {}]", flag.help, setting.default)),
    }
}

impl Settings {
    /// Loads the settings of this process from its flags, its environment variables and the settings file
    /// that they name.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn load(store: &StoreFlags, serve: &ServeFlags) -> Result<(Self, Sources), ConfigError> {
        let sources = gather(store, serve)?.require_valid()?;
        Ok((Self::read(&sources)?, sources))
    }

    /// Like [`Settings::load`], for a command that reports all findings at once: a setting without a valid
    /// value has its default, and [`Settings::findings`] returns what is wrong with it.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, if the settings file cannot be read or is not valid
    /// TOML.
    pub fn load_with_findings(
        store: &StoreFlags,
        serve: &ServeFlags,
    ) -> Result<(Self, Sources), ConfigError> {
        let sources = gather(store, serve)?;
        Ok((Self::read(&sources)?, sources))
    }
}

/// Collects the texts of the settings of this process.
fn gather(store: &StoreFlags, serve: &ServeFlags) -> Result<Sources, ConfigError> {
    let file = store.config.clone().or_else(|| env::var_os(FILE_VARIABLE).map(PathBuf::from));
    let flags = store.settings.given.iter().chain(&serve.given).cloned().collect();
    Sources::gather(file.as_deref(), env::vars_os(), flags)
}
