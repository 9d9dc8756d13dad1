//! The work of a check: a number by which hashes are compared without computing them.

/// A group of schemes whose amounts of work are comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::password) enum Family {
    Bcrypt,
    Pbkdf2Sha1,
    Pbkdf2Sha256,
    Scrypt,
    Argon2,
}

/// The work of a check with a wrong password. Within a family, the time is proportional to the amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::password) struct Work {
    pub(in crate::password) family: Family,
    pub(in crate::password) amount: u64,
}

impl Work {
    /// Returns the work of a bcrypt hash of this cost.
    pub(in crate::password) const fn of_bcrypt(cost: u32) -> Self {
        Self { family: Family::Bcrypt, amount: 1 << cost }
    }
}
