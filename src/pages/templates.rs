//! The templates and the style sheet of the pages.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use http::StatusCode;
use minijinja::{Environment, UndefinedBehavior, context};

use super::reply::Reply;
use crate::domain::{MailTokenPurpose, io_reason};

/// An error in the folder of replacement templates.
#[derive(Debug, thiserror::Error)]
pub enum TemplatesError {
    /// The folder, or a file in it, cannot be read.
    #[error("{path}: {}", io_reason(source))]
    Unreadable {
        /// The path of the folder or file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The folder contains a file that is not a template or the style sheet.
    #[error("{file} is not a page template; the templates are {}", names().join(", "))]
    Unknown {
        /// The name of the file.
        file: String,
    },
    /// A template has a syntax error or uses an undefined variable.
    #[error("{file}: {source}")]
    Invalid {
        /// The name of the file.
        file: String,
        /// The cause.
        source: minijinja::Error,
    },
}

/// The files of `templates/pages`, each with its name.
const FILES: &[(&str, &str)] = &[
    ("layout.html", include_str!("../../templates/pages/layout.html")),
    ("style.css", include_str!("../../templates/pages/style.css")),
    ("error.html", include_str!("../../templates/pages/error.html")),
    ("verify.html", include_str!("../../templates/pages/verify.html")),
    ("verify.done.html", include_str!("../../templates/pages/verify.done.html")),
    ("verify.refused.html", include_str!("../../templates/pages/verify.refused.html")),
    ("reset-password.html", include_str!("../../templates/pages/reset-password.html")),
    ("reset-password.done.html", include_str!("../../templates/pages/reset-password.done.html")),
    ("reset-password.refused.html", include_str!("../../templates/pages/reset-password.refused.html")),
    ("confirm-email.html", include_str!("../../templates/pages/confirm-email.html")),
    ("confirm-email.done.html", include_str!("../../templates/pages/confirm-email.done.html")),
    ("confirm-email.refused.html", include_str!("../../templates/pages/confirm-email.refused.html")),
    ("undo-email-change.html", include_str!("../../templates/pages/undo-email-change.html")),
    ("undo-email-change.done.html", include_str!("../../templates/pages/undo-email-change.done.html")),
    ("undo-email-change.refused.html", include_str!("../../templates/pages/undo-email-change.refused.html")),
];

/// The status codes with which the error page is rendered once when it is loaded, to find errors in it.
const ERRORS: [StatusCode; 8] = [
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// The time for which browsers may cache the style sheet. During it, they may show one that was replaced.
const STYLE_MAX_AGE: Duration = Duration::from_mins(5);

/// The reason on the page for a verification link of the Django backend after the date until which such links
/// were accepted.
pub(super) const OLD_LINK_ENDED: &str = "OLD_LINK_ENDED";

/// The relative URL of the folder of the pages, for a page in this folder.
pub(super) const HERE: &str = "";

const STYLE: &str = "style.css";
const ERROR: &str = "error.html";

/// Returns the names of all files that a folder of templates may contain.
fn names() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// The content of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// A form with a button.
    Form {
        /// The token that the form sends.
        token: String,
        /// The rule that the last submitted password broke.
        rule: Option<&'a str>,
    },
    /// The change was made.
    Done,
    /// The change was refused.
    Refused {
        /// The reason: that of [`crate::accounts::AccountError::reason`], or [`OLD_LINK_ENDED`].
        reason: &'a str,
    },
}

/// The templates of all pages, and the style sheet. Cheap to clone.
#[derive(Clone)]
pub struct PageTemplates {
    environment: Arc<Environment<'static>>,
    style: Arc<str>,
}

impl PageTemplates {
    /// Loads the built-in templates. A file of the same name in `folder` replaces a built-in one. Every
    /// template is rendered once in each state, to find errors.
    ///
    /// # Errors
    /// [`TemplatesError`], which names the file.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplatesError> {
        if let Some(folder) = folder {
            reject_unknown_files(folder)?;
        }
        let mut environment = Environment::new();
        // An undefined variable, such as a misspelt name, is an error instead of an empty string.
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
                let invalid = |source| TemplatesError::Invalid { file: (*name).to_owned(), source };
                environment.add_template_owned(*name, source).map_err(invalid)?;
            }
        }
        let templates = Self { environment: Arc::new(environment), style: style.into() };
        templates.render_all()?;
        Ok(templates)
    }

    fn render_all(&self) -> Result<(), TemplatesError> {
        let states = [
            State::Form { token: "token".to_owned(), rule: None },
            State::Form { token: "token".to_owned(), rule: Some("must not be empty") },
            State::Done,
            State::Refused { reason: "INVALID_TOKEN" },
            State::Refused { reason: "EMAIL_ALREADY_VERIFIED" },
            State::Refused { reason: "EMAIL_ALREADY_EXISTS" },
            State::Refused { reason: OLD_LINK_ENDED },
        ];
        for purpose in MailTokenPurpose::ALL {
            for state in &states {
                self.render_page(HERE, purpose, state)?;
            }
        }
        ERRORS.into_iter().try_for_each(|status| self.render_error(status).map(drop))
    }

    /// Renders a page in this state.
    pub(super) fn page(&self, status: StatusCode, purpose: MailTokenPurpose, state: &State<'_>) -> Reply {
        self.page_at(HERE, status, purpose, state)
    }

    /// Renders a page in this state for a path in any folder. The relative URL `root` leads from there to
    /// the folder of the pages. An absolute URL would not: a proxy may publish this folder under any path.
    pub(super) fn page_at(
        &self,
        root: &str,
        status: StatusCode,
        purpose: MailTokenPurpose,
        state: &State<'_>,
    ) -> Reply {
        Self::rendered(status, self.render_page(root, purpose, state))
    }

    /// Renders the error page for this status.
    pub(super) fn error(&self, status: StatusCode) -> Reply {
        Self::rendered(status, self.render_error(status))
    }

    /// Returns the style sheet.
    pub(super) fn style(&self) -> Reply {
        Reply::cacheable("text/css; charset=utf-8", STYLE_MAX_AGE, (*self.style).to_owned())
    }

    /// Returns the page, or an empty reply with status 500 if it could not be rendered.
    fn rendered(status: StatusCode, body: Result<String, TemplatesError>) -> Reply {
        match body {
            Ok(body) => Reply::page(status, body),
            Err(error) => {
                tracing::error!(%error, "Page template could not be rendered");
                Reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    fn render_page(
        &self,
        root: &str,
        purpose: MailTokenPurpose,
        state: &State<'_>,
    ) -> Result<String, TemplatesError> {
        let name = purpose.page();
        let page = format!("{root}{name}");
        match state {
            State::Form { token, rule } => {
                self.render(format!("{name}.html"), context! { root, page, token, rule })
            }
            State::Done => self.render(format!("{name}.done.html"), context! { root, page }),
            State::Refused { reason } => {
                self.render(format!("{name}.refused.html"), context! { root, page, reason => *reason })
            }
        }
    }

    fn render_error(&self, status: StatusCode) -> Result<String, TemplatesError> {
        self.render(ERROR.to_owned(), context! { root => HERE, status => status.as_u16() })
    }

    /// Renders a template.
    fn render(&self, file: String, values: minijinja::Value) -> Result<String, TemplatesError> {
        let rendered = self.environment.get_template(&file).and_then(|template| template.render(values));
        rendered.map_err(|source| TemplatesError::Invalid { file, source })
    }
}

/// Rejects a file that is not a template, because its name is most likely misspelt. Hidden files are allowed.
fn reject_unknown_files(folder: &Path) -> Result<(), TemplatesError> {
    let unreadable = |source: io::Error| {
        let is_file = source.kind() == io::ErrorKind::NotADirectory && folder.is_file();
        let source =
            if is_file { io::Error::new(source.kind(), "it is a file, not a folder") } else { source };
        TemplatesError::Unreadable { path: folder.display().to_string(), source }
    };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        let is_expected = names().contains(&file.as_str()) || file.starts_with('.');
        if !is_expected {
            return Err(TemplatesError::Unknown { file });
        }
    }
    Ok(())
}

/// Reads the replacement of a template; `None` if there is no file.
fn replacement(path: &Path) -> Result<Option<String>, TemplatesError> {
    match fs::read_to_string(path) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplatesError::Unreadable { path: path.display().to_string(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(templates: &PageTemplates, state: &State<'_>) -> String {
        templates.render_page(HERE, MailTokenPurpose::ResetPassword, state).unwrap()
    }

    #[test]
    fn a_page_contains_the_token_and_the_escaped_rule_but_no_script_or_foreign_link() {
        let templates = PageTemplates::load(None).unwrap();
        let form =
            page(&templates, &State::Form { token: "abc".into(), rule: Some("must be <b>longer</b>") });
        assert!(form.contains("value=\"abc\"") && form.contains("action=\"reset-password\""), "{form}");
        assert!(form.contains("must be &lt;b&gt;longer"), "{form}");
        for file in FILES.iter().filter(|(name, _)| *name != STYLE) {
            for active in ["<script", "style=", "onclick", "http:", "https:", "//"] {
                assert!(!file.1.contains(active), "{}: {active}", file.0);
            }
        }
    }

    #[test]
    fn a_folder_replaces_templates_by_name_and_an_invalid_folder_is_refused() {
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
            ("verfy.html", "", "not a page template"),
        ] {
            let path = folder.path().join(file);
            fs::write(&path, text).unwrap();
            let error = load().err().unwrap().to_string();
            assert!(error.starts_with(file) && error.contains(word), "{error}");
            fs::remove_file(path).unwrap();
        }
    }
}
