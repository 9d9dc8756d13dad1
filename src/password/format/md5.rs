//! Parses and verifies `md5$<salt>$<digest>`, which Django uses in its own tests. The digest is the MD5 of
//! salt and password as 32 lower-case hexadecimal digits.
//!
//! MD5 does not protect a password: an attacker that has the hash finds the password quickly. The format is
//! supported because such rows exist; the first login rewrites the hash.

use md5::{Digest as _, Md5 as Hasher};
use subtle::ConstantTimeEq as _;

use super::parse_error::HashParseError;
use crate::domain::hex;

const DIGITS: usize = 32;

pub(in crate::password) struct Md5 {
    salt: String,
    digest: String,
}

impl Md5 {
    /// Parses `<salt>$<digest>`. An empty salt, as in Django's older `md5$$...`, is malformed: Django rejects
    /// it too, so an import treats such a text as a plaintext password.
    pub(super) fn parse(text: &str) -> Result<Self, HashParseError> {
        let (salt, digest) = text.split_once('$').ok_or(HashParseError::Malformed)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if salt.is_empty() || digest.len() != DIGITS || !digest.bytes().all(is_digit) {
            return Err(HashParseError::Malformed);
        }
        Ok(Self { salt: salt.to_owned(), digest: digest.to_owned() })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let computed =
            hex(&Hasher::new().chain_update(self.salt.as_bytes()).chain_update(password).finalize());
        computed.as_bytes().ct_eq(self.digest.as_bytes()).into()
    }
}
