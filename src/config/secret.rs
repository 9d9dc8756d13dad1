//! `[secret]`

use std::path::PathBuf;

use super::setting::section;

section! {
    /// Keys of the service itself.
    SecretSettings in "secret" {
        /// A file with 32 random bytes in base64 (`openssl rand -base64 32`), under which secrets lie in the database: mailed
        /// tokens that wait for their mail, and the keys that sign access tokens.
        /// With SQLite it may be left out: then a key is made beside the database. All instances on one PostgreSQL share it.
        key_file: Option<PathBuf> = "",
    }
}
