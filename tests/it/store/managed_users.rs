//! Users that an operator disabled or marked as unverified.

use std::time::Duration;

use kairos_identity::{
    domain::{MailKind, PasswordHash, SessionId},
    store::{EmailChangeRequest, PasswordChange, RetentionPeriods},
};

use super::{DAY, NOW, RowCounts, World, email, event};

/// Returns retention times that purge mailed tokens and unverified users after 30 days, and nothing else.
fn retention() -> RetentionPeriods {
    let unlimited = Duration::from_hours(24 * 36_500);
    RetentionPeriods {
        expired_tokens: 30 * DAY,
        finished_mails: unlimited,
        request_ids: unlimited,
        unverified_users: 30 * DAY,
        sessions: unlimited,
        idle_sessions: unlimited,
        audit_events: unlimited,
    }
}

on_both_engines! {
    async fn a_user_verified_once_is_never_purged_or_replaced(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        world.store.mark_verified(ada.id, event(NOW.plus(DAY))).await.unwrap();
        let (link, _) = world.mail();
        let ada = world.store.mark_unverified(ada.id, link, event(NOW.plus(2 * DAY))).await.unwrap().unwrap();
        assert_eq!((ada.is_verified, ada.updated_at), (false, NOW.plus(2 * DAY)));

        let years_later = NOW.plus(4_000 * DAY);
        assert!(!world.store.is_abandoned(&ada.email, years_later).await.unwrap());
        let (mut registration, _) = world.registration("eve");
        (registration.email, registration.created_at) = (ada.email.clone(), years_later);
        registration.abandoned_until = Some(years_later);
        world.store.register(registration).await.unwrap_err();
        let purged = world.store.purge(retention(), event(years_later)).await.unwrap();
        assert_eq!(purged.users, 0);
        assert_eq!(world.store.find_user_by_email(&ada.email).await.unwrap(), Some(ada));
    }

    async fn a_disabled_user_is_not_purged_and_enabling_restarts_the_purge_delay(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        world.store.disable_user(ada.id, event(NOW)).await.unwrap();
        let later = NOW.plus(400 * DAY);
        assert!(!world.store.is_abandoned(&ada.email, later).await.unwrap());
        assert_eq!(world.store.purge(retention(), event(later)).await.unwrap().users, 0);

        let (link, _) = world.mail();
        let link = kairos_identity::store::NewMail { expires_at: later.plus(DAY), ..link };
        assert!(world.store.enable_user(ada.id, link, event(later)).await.unwrap());
        // The new link does not reserve the email: only the time of registration counts.
        assert!(world.store.is_abandoned(&ada.email, later).await.unwrap());
        assert_eq!(world.store.purge(retention(), event(later.plus(29 * DAY))).await.unwrap().users, 0);
        assert_eq!(world.store.purge(retention(), event(later.plus(31 * DAY))).await.unwrap().users, 1);
    }

    async fn account_changes_are_refused_once_the_user_is_disabled(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let hash = || PasswordHash::from_stored("hash of ada".to_owned());
        world.store.mark_verified(ada.id, event(NOW)).await.unwrap();
        world.store.disable_user(ada.id, event(NOW)).await.unwrap();
        let before = world.counts();

        let change = PasswordChange {
            user: ada.id,
            old: hash(),
            new: PasswordHash::from_stored("another".to_owned()),
            keep: SessionId::from_random([1; 16]),
            notice: world.mail_to(MailKind::PasswordChanged, &ada.email).0,
            event: event(NOW),
        };
        assert!(!world.store.change_password(change).await.unwrap());
        let request = EmailChangeRequest {
            user: ada.id,
            password: hash(),
            link: world.mail_to(MailKind::ConfirmEmailChange, &email("eve@example.com")).0,
            notice: world.mail_to(MailKind::EmailChangeRequested, &ada.email).0,
            event: event(NOW),
        };
        assert!(!world.store.request_email_change(request).await.unwrap());
        assert!(!world.store.delete_account(ada.id, hash(), event(NOW)).await.unwrap());
        let notice = world.mail_to(MailKind::UsernameChanged, &ada.email).0;
        let renamed = world.store.change_username(ada.id, &ada.username, notice, event(NOW)).await.unwrap();
        assert_eq!(renamed, None);
        assert_eq!(world.counts(), before);
        let credentials = world.store.find_credentials(&ada.email).await.unwrap().unwrap();
        assert!(credentials.is_disabled && credentials.password.expose() == hash().expose());
    }

    async fn an_account_is_deleted_only_with_the_hash_that_was_checked(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let wrong = PasswordHash::from_stored("hash of an earlier password".to_owned());
        assert!(!world.store.delete_account(ada.id, wrong, event(NOW)).await.unwrap());
        let right = PasswordHash::from_stored("hash of ada".to_owned());
        assert!(world.store.delete_account(ada.id, right, event(NOW)).await.unwrap());
        assert_eq!(world.counts(), RowCounts::NONE);
    }
}
