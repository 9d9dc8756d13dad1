//! `md5$<salt>$<digest>`, which Django uses for its own tests: MD5 over salt and password, as 32 lower-case hexadecimal digits.
//!
//! Anybody who has the hash has the password. It is verified because such rows exist, and rewritten by the first login.

use md5::{Digest as _, Md5 as Hasher};
use subtle::ConstantTimeEq as _;

use super::Unreadable;
use crate::domain::hex;

const DIGITS: usize = 32;

pub(in crate::password) struct Md5 {
    salt: String,
    digest: String,
}

impl Md5 {
    /// Django refuses an empty salt, as its older `md5$$…` had; so that is somebody's password.
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        let (salt, digest) = text.split_once('$').ok_or(Unreadable::Malformed)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if salt.is_empty() || digest.len() != DIGITS || !digest.bytes().all(is_digit) {
            return Err(Unreadable::Malformed);
        }
        Ok(Self { salt: salt.to_owned(), digest: digest.to_owned() })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let computed =
            hex(&Hasher::new().chain_update(self.salt.as_bytes()).chain_update(password).finalize());
        computed.as_bytes().ct_eq(self.digest.as_bytes()).into()
    }
}
