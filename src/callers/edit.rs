//! Changes the text of a callers file. Comments and the other entries stay as they are.

use toml_edit::{Array, DocumentMut, Item, Table, TomlError, value};

use super::{entry::TOKENS_MAX, role::Role, token::TokenHash};

const TOKEN_HASHES: &str = "token-hashes";

/// Why a callers file cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file is not TOML, or the token hashes of an entry are not a list.
    #[error("the file is not TOML: {0}")]
    Malformed(String),
    /// An entry of this name exists.
    #[error("the file already has a caller {0}; `caller rotate` gives it a new token")]
    Exists(String),
    /// No entry has this name.
    #[error("the file has no caller {0}")]
    Unknown(String),
    /// Without this entry the file would have none, which the service refuses.
    #[error(
        "{0} is the only caller, and a file without callers is refused: add another one first, or replace its token \
         with `caller rotate {0}` and `caller rotate {0} --finish`"
    )]
    OnlyCaller(String),
    /// The entry has as many token hashes as it may have.
    #[error(
        "caller {0} has {TOKENS_MAX} tokens already; `caller rotate {0} --finish` removes the earlier ones"
    )]
    TooManyTokens(String),
    /// The entry has one token, or none.
    #[error("caller {0} has no earlier token")]
    NoEarlierToken(String),
}

impl From<TomlError> for EditError {
    fn from(error: TomlError) -> Self {
        Self::Malformed(error.message().to_owned())
    }
}

/// The text of a callers file.
pub struct CallersText(DocumentMut);

/// An entry as it is written in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct EntryText {
    /// The name of the caller.
    pub name: String,
    /// The number of service tokens.
    pub tokens: usize,
    /// The number of certificate names.
    pub certificates: usize,
    /// The method patterns.
    pub methods: Vec<String>,
    /// The user fields.
    pub user_fields: Vec<String>,
}

impl CallersText {
    /// Parses the text, which may be empty. Does not check the entries.
    ///
    /// # Errors
    /// [`EditError::Malformed`]
    pub fn parse(text: &str) -> Result<Self, EditError> {
        Ok(Self(text.parse()?))
    }

    /// Adds an entry with the rights of `role`.
    ///
    /// # Errors
    /// [`EditError::Exists`]
    pub fn add(&mut self, name: &str, role: Role, token: TokenHash) -> Result<(), EditError> {
        if self.0.contains_key(name) {
            return Err(EditError::Exists(name.to_owned()));
        }
        let mut entry = Table::new();
        let list = |texts: &[&str]| value(texts.iter().copied().collect::<Array>());
        entry.insert(TOKEN_HASHES, list(&[&token.to_string()]));
        entry.insert("methods", list(role.methods()));
        entry.insert("user-fields", list(role.user_fields()));
        if role.tells_client() {
            entry.insert("tells-client", value(true));
        }
        if !self.0.is_empty() {
            entry.decor_mut().set_prefix("\n");
        }
        self.0.insert(name, Item::Table(entry));
        Ok(())
    }

    /// Adds a token to an entry. The earlier token stays valid.
    ///
    /// # Errors
    /// [`EditError::Unknown`] or [`EditError::TooManyTokens`]
    pub fn add_token(&mut self, name: &str, token: TokenHash) -> Result<(), EditError> {
        let hashes = self.hashes(name)?;
        if hashes.len() >= TOKENS_MAX {
            return Err(EditError::TooManyTokens(name.to_owned()));
        }
        hashes.push(token.to_string());
        Ok(())
    }

    /// Removes all tokens of an entry except the one that was added last.
    ///
    /// # Errors
    /// [`EditError::Unknown`] or [`EditError::NoEarlierToken`]
    pub fn remove_earlier_tokens(&mut self, name: &str) -> Result<(), EditError> {
        let hashes = self.hashes(name)?;
        if hashes.len() < 2 {
            return Err(EditError::NoEarlierToken(name.to_owned()));
        }
        while hashes.len() > 1 {
            hashes.remove(0);
        }
        // The hash that is now the first one still has the space that followed the comma.
        if let Some(newest) = hashes.get_mut(0) {
            newest.decor_mut().clear();
        }
        Ok(())
    }

    /// Returns the entries in the order of the file. A key that is missing, or has another value than a list,
    /// counts as an empty list.
    pub fn entries(&self) -> impl Iterator<Item = EntryText> {
        self.0.iter().map(|(name, entry)| {
            let list = |key: &str| -> Vec<String> {
                let values = entry.get(key).and_then(Item::as_array).into_iter().flatten();
                values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
            };
            EntryText {
                name: name.to_owned(),
                tokens: list(TOKEN_HASHES).len(),
                certificates: list("certificates").len(),
                methods: list("methods"),
                user_fields: list("user-fields"),
            }
        })
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// [`EditError::Unknown`] or [`EditError::OnlyCaller`]
    pub fn remove(&mut self, name: &str) -> Result<(), EditError> {
        if self.0.len() == 1 && self.0.contains_key(name) {
            return Err(EditError::OnlyCaller(name.to_owned()));
        }
        self.0.remove(name).map(|_| ()).ok_or_else(|| EditError::Unknown(name.to_owned()))
    }

    /// Returns the token hashes of an entry; an empty list if it has none.
    fn hashes(&mut self, name: &str) -> Result<&mut Array, EditError> {
        let unknown = || EditError::Unknown(name.to_owned());
        let entry = self.0.get_mut(name).and_then(Item::as_table_like_mut).ok_or_else(unknown)?;
        let hashes = entry.entry(TOKEN_HASHES).or_insert_with(|| value(Array::new()));
        hashes.as_array_mut().ok_or_else(|| EditError::Malformed(format!("{TOKEN_HASHES} must be a list")))
    }
}

impl std::fmt::Display for CallersText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::token::ServiceToken, *};
    use crate::callers::Callers;

    /// A method of each pattern in the roles.
    const METHODS: [&str; 8] = [
        "/kairos.identity.v1.IdentityService/ResolveToken",
        "/kairos.identity.v1.IdentityService/ResolveTokens",
        "/kairos.identity.v1.IdentityService/FindUser",
        "/kairos.identity.v1.SessionService/GetJwks",
        "/kairos.identity.v1.SessionService/IntrospectToken",
        "/kairos.identity.v1.AccountService/GetAccount",
        "/kairos.identity.v1.AdminService/ListUsers",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ];

    fn hash(byte: u8) -> TokenHash {
        ServiceToken::from_random([byte; 32]).hash()
    }

    #[test]
    fn each_role_is_a_valid_entry() {
        let mut text = CallersText::parse("").unwrap();
        for (number, role) in Role::ALL.into_iter().enumerate() {
            text.add(&format!("caller{number}"), role, hash(u8::try_from(number).unwrap())).unwrap();
        }
        assert!(Callers::parse(&text.to_string(), &METHODS).is_ok(), "{text}");
    }

    #[test]
    fn a_change_of_one_entry_keeps_comments_and_other_entries() {
        let before = format!(
            "# Our callers\n[agent]\ntoken-hashes = [\"{}\"] # since May\nmethods = []\nuser-fields = []\n",
            hash(1)
        );
        let mut text = CallersText::parse(&before).unwrap();
        text.add("bff", Role::Bff, hash(2)).unwrap();
        assert!(text.to_string().starts_with(&before), "{text}");
        assert_eq!(text.add("bff", Role::Agent, hash(3)), Err(EditError::Exists("bff".to_owned())));

        text.add_token("agent", hash(4)).unwrap();
        assert_eq!(text.add_token("agent", hash(5)), Err(EditError::TooManyTokens("agent".to_owned())));
        text.remove_earlier_tokens("agent").unwrap();
        assert!(text.to_string().contains(&format!("[\"{}\"] # since May", hash(4))), "{text}");
        assert_eq!(text.remove_earlier_tokens("agent"), Err(EditError::NoEarlierToken("agent".to_owned())));

        text.remove("bff").unwrap();
        assert_eq!(text.to_string(), before.replace(&hash(1).to_string(), &hash(4).to_string()));
        assert_eq!(text.remove("bff"), Err(EditError::Unknown("bff".to_owned())));
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_without_its_text() {
        let error = CallersText::parse("[bff\nkst_secret").err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
