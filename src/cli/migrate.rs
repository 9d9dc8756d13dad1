//! `kairos-identity migrate`

use super::{
    Failure,
    output::{print, print_change},
    store::{self, IfMissing},
};
use crate::{clock::Clock, config::Settings};

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let url = &settings.database.url;
    store::wait_for_server(settings, &Clock::system()).await?;
    let migrated = store::open(settings, IfMissing::Create)?
        .migrate()
        .await
        .map_err(|error| store::database_failure(settings, &error))?;
    match migrated.as_slice() {
        [] => print(format_args!("{url} is up to date")),
        versions => print_change(format_args!(
            "{url} is up to date; ran {} migrations: {}",
            versions.len(),
            versions.join(", ")
        )),
    }
}
