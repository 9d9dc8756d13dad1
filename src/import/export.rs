//! Exports the users of the store to a table that Django reads.

use super::{ImportError, Progress, error::of_source, store_reader::StoreReader};
use crate::{
    database::DatabaseOptions,
    django::{DjangoTarget, DjangoUser},
    entropy::Entropy,
};

/// The numbers of exported users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// All users.
    pub users: u64,
    /// Users among them that an operator has disabled; they get an unusable password in Django.
    pub disabled: u64,
}

/// Writes every user of the store, as it is at the start, into Django's table; all in one transaction.
///
/// # Errors
/// [`ImportError`]; the table is unchanged then, unless the connection was lost during the commit.
pub async fn export(
    store: &DatabaseOptions,
    target: &DatabaseOptions,
    entropy: &Entropy,
    progress: &mut impl Progress,
) -> Result<Exported, ImportError> {
    let mut reader = StoreReader::begin(store).await?;
    let mut target = DjangoTarget::begin(target).await?;
    progress.begin("writing", reader.count_users().await?);
    let mut exported = Exported::default();
    let mut after = None;
    loop {
        let mut users = reader.users(after).await?;
        let Some(last) = users.last() else { break };
        after = Some(last.id);
        for user in &mut users {
            exported.users += 1;
            exported.disabled += u64::from(user.is_disabled);
            replace_password_if_disabled(user, entropy);
        }
        target.write(&users).await.map_err(of_source)?;
        progress.advance(users.len() as u64);
    }
    target.finish().await.map_err(of_source)?;
    progress.end();
    Ok(exported)
}

/// Gives a disabled user an unusable password: Django's table has no column for disabled users.
fn replace_password_if_disabled(user: &mut DjangoUser, entropy: &Entropy) {
    if user.is_disabled {
        user.password = super::apply::unusable_password(entropy);
    }
}
