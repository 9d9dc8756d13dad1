//! The words and the looks of the pages.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use http::StatusCode;
use minijinja::{Environment, UndefinedBehavior, context};

use super::reply::Reply;
use crate::domain::MailTokenPurpose;

/// Why the pages have no words.
#[derive(Debug, thiserror::Error)]
pub enum BadTemplates {
    /// The folder, or a file in it, cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The folder holds a file that no page has.
    #[error("{file} is no template of a page; there are {}", names().join(", "))]
    Unknown {
        /// Its name.
        file: String,
    },
    /// A template does not parse, or asks for what there is not.
    #[error("{file}: {source}")]
    Faulty {
        /// Which.
        file: String,
        /// What is wrong.
        source: minijinja::Error,
    },
}

/// The files of `templates/pages`.
macro_rules! files {
    ($($name:literal)+) => { &[$(($name, include_str!(concat!("../../templates/pages/", $name)))),+] };
}

const FILES: &[(&str, &str)] = files! {
    "layout.html" "style.css" "error.html"
    "verify.html" "verify.done.html" "verify.refused.html"
    "reset-password.html" "reset-password.done.html" "reset-password.refused.html"
    "confirm-email.html" "confirm-email.done.html" "confirm-email.refused.html"
};

/// What the page of errors may be about.
const ERRORS: [StatusCode; 6] = [
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// How long a browser may keep the style.
const STYLE_KEPT: Duration = Duration::from_mins(5);

const STYLE: &str = "style.css";
const ERROR: &str = "error.html";

fn names() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// What a page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// There is a button to press.
    Asking {
        /// What its form sends.
        token: String,
        /// The rule that the last password broke.
        rule: Option<&'a str>,
    },
    /// It was pressed, and is done.
    Done,
    /// It is not done, for this reason of `error_reason.proto`.
    Refused {
        /// [`crate::accounts::AccountError::reason`]
        reason: &'a str,
    },
}

/// The templates of all pages. Cheap to clone.
#[derive(Clone)]
pub struct PageTemplates {
    environment: Arc<Environment<'static>>,
    style: Arc<str>,
}

impl PageTemplates {
    /// The templates that are compiled in, each replaced by the file of its name in `folder`, if there is one. All are tried.
    ///
    /// # Errors
    /// [`BadTemplates`], which names the file.
    pub fn load(folder: Option<&Path>) -> Result<Self, BadTemplates> {
        if let Some(folder) = folder {
            refuse_unknown(folder)?;
        }
        let mut environment = Environment::new();
        // A misspelt name is a fault to be told of, not an empty place on a page.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut style = String::new();
        for (name, built_in) in FILES {
            let source = match folder.map(|folder| replacement(&folder.join(name))).transpose()?.flatten() {
                Some(replacement) => replacement,
                None => (*built_in).to_owned(),
            };
            if *name == STYLE {
                style = source;
            } else {
                let faulty = |source| BadTemplates::Faulty { file: (*name).to_owned(), source };
                environment.add_template_owned(*name, source).map_err(faulty)?;
            }
        }
        let templates = Self { environment: Arc::new(environment), style: style.into() };
        templates.try_all()?;
        Ok(templates)
    }

    fn try_all(&self) -> Result<(), BadTemplates> {
        let states = [
            State::Asking { token: "token".to_owned(), rule: None },
            State::Asking { token: "token".to_owned(), rule: Some("must not be empty") },
            State::Done,
            State::Refused { reason: "INVALID_TOKEN" },
            State::Refused { reason: "EMAIL_ALREADY_VERIFIED" },
            State::Refused { reason: "EMAIL_ALREADY_EXISTS" },
        ];
        for purpose in MailTokenPurpose::ALL {
            for state in &states {
                self.render_page(purpose, state)?;
            }
        }
        ERRORS.into_iter().try_for_each(|status| self.render_error(status).map(drop))
    }

    /// A page in this state.
    pub(super) fn page(&self, status: StatusCode, purpose: MailTokenPurpose, state: &State<'_>) -> Reply {
        Self::rendered(status, self.render_page(purpose, state))
    }

    /// A page about something else that went wrong.
    pub(super) fn error(&self, status: StatusCode) -> Reply {
        Self::rendered(status, self.render_error(status))
    }

    /// How the pages look.
    pub(super) fn style(&self) -> Reply {
        Reply::public("text/css; charset=utf-8", STYLE_KEPT, (*self.style).to_owned())
    }

    fn rendered(status: StatusCode, body: Result<String, BadTemplates>) -> Reply {
        match body {
            Ok(body) => Reply::page(status, body),
            Err(error) => {
                tracing::error!(%error, "A page has no words");
                Reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    fn render_page(&self, purpose: MailTokenPurpose, state: &State<'_>) -> Result<String, BadTemplates> {
        let page = purpose.page();
        match state {
            State::Asking { token, rule } => {
                self.render(format!("{page}.html"), context! { page, token, rule })
            }
            State::Done => self.render(format!("{page}.done.html"), context! { page }),
            State::Refused { reason } => {
                self.render(format!("{page}.refused.html"), context! { page, reason => *reason })
            }
        }
    }

    fn render_error(&self, status: StatusCode) -> Result<String, BadTemplates> {
        self.render(ERROR.to_owned(), context! { status => status.as_u16() })
    }

    fn render(&self, file: String, values: minijinja::Value) -> Result<String, BadTemplates> {
        let rendered = self.environment.get_template(&file).and_then(|template| template.render(values));
        rendered.map_err(|source| BadTemplates::Faulty { file, source })
    }
}

/// A file that nobody reads is most likely misspelt.
fn refuse_unknown(folder: &Path) -> Result<(), BadTemplates> {
    let unreadable = |source| BadTemplates::Unreadable { path: folder.display().to_string(), source };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        let is_ours = names().contains(&file.as_str()) || file.starts_with('.');
        if !is_ours {
            return Err(BadTemplates::Unknown { file });
        }
    }
    Ok(())
}

fn replacement(path: &Path) -> Result<Option<String>, BadTemplates> {
    match fs::read_to_string(path) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BadTemplates::Unreadable { path: path.display().to_string(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(templates: &PageTemplates, state: &State<'_>) -> String {
        templates.render_page(MailTokenPurpose::ResetPassword, state).unwrap()
    }

    #[test]
    fn a_page_sends_its_token_and_says_which_rule_was_broken() {
        let templates = PageTemplates::load(None).unwrap();
        let asking =
            page(&templates, &State::Asking { token: "abc".into(), rule: Some("must be <b>longer</b>") });
        assert!(asking.contains("value=\"abc\"") && asking.contains("action=\"reset-password\""), "{asking}");
        assert!(asking.contains("must be &lt;b&gt;longer"), "{asking}");
        for file in FILES.iter().filter(|(name, _)| *name != STYLE) {
            for active in ["<script", "style=", "onclick", "http:", "https:", "//"] {
                assert!(!file.1.contains(active), "{}: {active}", file.0);
            }
        }
    }

    #[test]
    fn a_folder_replaces_what_it_holds_and_a_faulty_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = || PageTemplates::load(Some(folder.path()));
        fs::write(folder.path().join("reset-password.done.html"), "Fertig.").unwrap();
        let templates = load().unwrap();
        assert_eq!(page(&templates, &State::Done), "Fertig.");
        assert!(page(&templates, &State::Refused { reason: "INVALID_TOKEN" }).contains("Kairos"));

        for (file, text, word) in [
            ("verify.html", "{{ tokne }}", "undefined"),
            ("verify.html", "{% if %}", "syntax"),
            ("error.html", "{% if status == 503 %}{{ tokne }}{% endif %}", "undefined"),
            ("verfy.html", "", "no template of a page"),
        ] {
            let path = folder.path().join(file);
            fs::write(&path, text).unwrap();
            let error = load().err().unwrap().to_string();
            assert!(error.starts_with(file) && error.contains(word), "{error}");
            fs::remove_file(path).unwrap();
        }
    }
}
