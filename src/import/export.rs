//! The way back: the store as a table that Django reads.

use super::{ImportError, Progress, error::of_source};
use crate::{
    entropy::Entropy,
    store::{DjangoTarget, DjangoUser, StoreOptions, StoreReader},
};

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// All users.
    pub users: u64,
    /// Those among them whom an operator keeps out: Django gets an unusable password for them.
    pub disabled: u64,
}

/// Writes every user of the store, as it is when this begins, into Django's table; all or none.
///
/// # Errors
/// [`ImportError`]; the table is as it was then.
pub async fn export(
    store: &StoreOptions,
    target: &StoreOptions,
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
            keep_out(user, entropy);
        }
        target.write(&users).await.map_err(of_source)?;
        progress.advance(users.len() as u64);
    }
    target.finish().await.map_err(of_source)?;
    progress.end();
    Ok(exported)
}

/// Django's table has no column for it, so that a password is what keeps somebody out.
fn keep_out(user: &mut DjangoUser, entropy: &Entropy) {
    if user.is_disabled {
        user.password = super::apply::unusable_password(entropy);
    }
}
