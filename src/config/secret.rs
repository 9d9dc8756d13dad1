//! `[secret]`

use std::path::PathBuf;

use super::{section::section, setting::Flag};

section! {
    /// The service's own encryption keys.
    SecretSettings in "secret" {
        /// A file with 32 random bytes in base64 (`openssl rand -base64 32`): the key that encrypts the
        /// secrets in the database, which are the tokens of mails that are not yet sent and the keys that
        /// sign access tokens. On SQLite it may be unset: then a key file is created beside the database. All
        /// instances on one PostgreSQL must use the same key. The file may have several keys, one per line:
        /// the first encrypts, all of them decrypt. It is read again within 2 s of a change, and at once on
        /// SIGHUP. `kairos-identity keys secret rotate` replaces the key while instances run
        /// (docs/backup.md).
        #[flag(Flag::of_serve(
            "secret-key-file", "FILE",
            "A file with 32 random bytes in base64, the key that encrypts the secrets in the database; \
             required with PostgreSQL",
        ))]
        key_file: Option<PathBuf> = "",
    }
}
