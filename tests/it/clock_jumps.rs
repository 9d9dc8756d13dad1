//! Jumps of the clock, forward and back: what was revoked stays revoked, no throttle lasts too long, and
//! users can log in.

use std::{sync::Arc, time::Duration};

use kairos_identity::{
    access_token::{AccessTokenOptions, AccessTokens},
    accounts::{
        AccountError, Accounts, AccountsDependencies, AccountsOptions, AuditLimits, AuditTrail, Budget,
        ClockWatch, Housekeeping, IssuedTokens, KeyOptions, MailOptions, MailedBy, Mails, NewAccount,
        NewPasswordError, Retention, SessionOptions, SigningKeys, ThrottleOptions,
    },
    clock::Clock,
    domain::{Email, LinkToken, MailToken, Origin, Password, Timestamp, Username},
    entropy::Entropy,
    env::Env,
    password::{PasswordOptions, Passwords, Policy},
    sealing::SealingKeys,
};

use crate::{
    store::{DAY, NOW, World, email, event},
    support::{
        engine::Engine,
        people::{NEW_PASSWORD, PASSWORD},
    },
};

const MINUTE: Duration = Duration::from_mins(1);
const BUDGET: Budget = Budget { max: 1_000, window: Duration::from_mins(15) };

/// A time to which a test sets the clock, relative to the time when the test began.
#[derive(Clone, Copy)]
enum Jump {
    Ahead(Duration),
    Back(Duration),
}
use Jump::{Ahead, Back};

const TO_THE_START: Jump = Ahead(Duration::ZERO);

/// The account operations on a store of their own, with a clock that the test sets.
struct Scene {
    world: World,
    accounts: Accounts,
    keys: SigningKeys,
    clock: Clock,
    origin: Origin,
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        let world = World::new(engine).await;
        let scene = Self::at(NOW, world, Duration::ZERO).await;
        scene.register_ada().await;
        scene
    }

    /// A service that starts at `start` on this store, and deletes nothing by its age for `pause` after a
    /// jump of the clock.
    async fn at(start: Timestamp, world: World, pause: Duration) -> Self {
        let (clock, entropy) = (Clock::manual(start), Entropy::seeded(9));
        let sealing_keys = SealingKeys::parse("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
        let sealing_keys = Arc::new(sealing_keys);
        let access_tokens = AccessTokens::new(AccessTokenOptions {
            issuer: "https://id.example".to_owned(),
            audience: "kairos".to_owned(),
            lifetime: 10 * MINUTE,
        });
        let options = KeyOptions { rotation_age: 30 * DAY, lead: 60 * MINUTE };
        let keys = SigningKeys::new(
            world.store.clone(),
            Arc::clone(&sealing_keys),
            access_tokens,
            options,
            Env { clock: clock.clone(), entropy: entropy.clone() },
        );
        keys.load_or_rotate().await.unwrap();
        let mail_options = MailOptions {
            verification_lifetime: DAY,
            reset_lifetime: 20 * MINUTE,
            undo_lifetime: 3 * DAY,
            message_id_domain: "kairos.example".to_owned(),
        };
        let passwords =
            PasswordOptions { cost: 4, threads: 1, queue_length: 10, refusal_time_max: Duration::ZERO };
        let limits = AuditLimits { unauthenticated_max: 10, per_caller_max: 10, per_account_max: 10 };
        let env = Env { clock: clock.clone(), entropy: entropy.clone() };
        let dependencies = AccountsDependencies {
            store: world.store.clone(),
            passwords: Passwords::start(passwords, env.clone()).unwrap(),
            signing_keys: keys.clone(),
            mails: Mails::new(mail_options, sealing_keys, entropy.clone(), Arc::default()),
            clock_watch: ClockWatch::new(clock.clone(), pause),
            audit: AuditTrail::new(world.store.clone(), clock.clone(), limits),
            env,
        };
        let accounts = Accounts::new(dependencies, accounts_options());
        Self { world, accounts, keys, clock, origin: Origin::local("test") }
    }

    /// Registers a user with the email of `ada`.
    async fn register(&self, username: &str) -> Result<MailToken, NewPasswordError> {
        let account = NewAccount {
            username: Username::parse(username).unwrap(),
            email: ada(),
            password: self.accounts.parse_new_password(PASSWORD.to_owned()).unwrap(),
            request_id: None,
            mailed_by: MailedBy::Caller,
            origin: self.origin.clone(),
        };
        Ok(self.accounts.register(account).await?.mail_token.unwrap())
    }

    /// Returns the username of the user with the email of `ada`.
    async fn owner(&self) -> String {
        let user = self.world.store.find_user_by_email(&ada()).await.unwrap();
        user.unwrap().username.as_str().to_owned()
    }

    /// Registers the user `ada` and verifies the email.
    async fn register_ada(&self) {
        let token = self.register("ada").await.unwrap();
        self.accounts.verify_email(LinkToken::Mailed(token), &self.origin).await.unwrap();
    }

    /// Sets the clock, and prepares the signing keys for the new time.
    async fn jump(&self, to: Jump) {
        self.clock.set(match to {
            Ahead(ahead) => NOW.plus(ahead),
            Back(back) => NOW.minus(back),
        });
        self.keys.load_or_rotate().await.unwrap();
    }

    async fn log_in(&self, password: &str) -> Result<IssuedTokens, AccountError> {
        let password = Password::parse(password.to_owned()).unwrap();
        self.accounts.log_in(&ada(), &password, &self.origin).await
    }

    async fn is_active(&self, tokens: &IssuedTokens) -> bool {
        self.accounts.introspect(tokens.access_token.expose()).await.unwrap().is_some()
    }

    async fn reset_link(&self) -> MailToken {
        let requested =
            self.accounts.request_password_reset(ada(), MailedBy::Caller, self.origin.clone()).await;
        requested.unwrap().unwrap()
    }

    async fn reset(&self, token: &MailToken) -> bool {
        self.accounts.reset_password(token, NEW_PASSWORD.to_owned(), &self.origin).await.is_ok()
    }
}

/// Returns a job that deletes unverified users after 30 days.
fn housekeeping(world: &World, clock: &Clock, pause: Duration) -> Housekeeping {
    let retention = Retention {
        unverified_users: 30 * DAY,
        finished_mails: 30 * DAY,
        audit_events: 365 * DAY,
        audit_rows_max: 1_000,
    };
    let sessions = accounts_options().sessions;
    let watch = ClockWatch::new(clock.clone(), pause);
    Housekeeping::new(world.store.clone(), watch, Origin::local("test"), sessions, retention)
}

fn ada() -> Email {
    email("ada@example.com")
}

fn accounts_options() -> AccountsOptions {
    AccountsOptions {
        accept_auth_token_until: None,
        notifies_new_address: false,
        password_policy: Policy { length_min_characters: 8, score_min: 3 },
        sessions: SessionOptions { idle: 7 * DAY, lifetime: 30 * DAY, per_user_max: 10 },
        throttle: ThrottleOptions {
            failures_max: 2,
            wait_first: 15 * MINUTE,
            wait_max: 60 * MINUTE,
            failures_in_a_row_max: 100,
            pause: DAY,
            total: BUDGET,
            failures_per_address: BUDGET,
            in_progress_per_address_max: 32,
            registrations_from: BUDGET,
            new_passwords: BUDGET,
            resends_to: BUDGET,
            resends_from: BUDGET,
            known_address_lifetime: 90 * DAY,
        },
        background_max: 10,
    }
}

on_both_engines! {
    async fn a_jump_forward_expires_only_what_is_past_its_lifetime(engine: Engine) {
        let scene = Scene::new(engine).await;
        let first = scene.log_in(PASSWORD).await.unwrap();
        let link = scene.reset_link().await;

        scene.jump(Ahead(21 * MINUTE)).await;
        assert!(!scene.is_active(&first).await && !scene.reset(&link).await);
        let second = scene.accounts.refresh_session(&first.refresh_token, &scene.origin).await.unwrap();
        assert!(scene.is_active(&second).await);

        // After years the signing keys have been rotated, and the session has expired.
        scene.jump(Ahead(1_000 * DAY)).await;
        assert!(scene.accounts.refresh_session(&second.refresh_token, &scene.origin).await.is_err());
        scene.jump(Ahead(1_000 * DAY + 61 * MINUTE)).await;
        let third = scene.log_in(PASSWORD).await.unwrap();
        assert!(scene.is_active(&third).await);
    }

    async fn after_a_jump_back_users_can_log_in_at_once(engine: Engine) {
        let scene = Scene::new(engine).await;
        let before = scene.log_in(PASSWORD).await.unwrap();

        // As if the clock had been ahead by this much at the first start and was corrected later. 31 s is the
        // shortest time that counts: a token may be issued up to 30 s in the future.
        for back in [31 * Duration::from_secs(1), 60 * MINUTE, DAY, 4_000 * DAY] {
            scene.jump(Back(back)).await;
            assert!(!scene.is_active(&before).await, "a token issued in the future is not valid: {back:?}");
            let tokens = scene.log_in(PASSWORD).await.unwrap();
            assert!(scene.is_active(&tokens).await, "{back:?}");
            let next = scene.accounts.refresh_session(&tokens.refresh_token, &scene.origin).await.unwrap();
            assert!(scene.is_active(&next).await, "{back:?}");
        }
        // The clock returns to the original time.
        scene.jump(TO_THE_START).await;
        assert!(scene.is_active(&before).await);
        let after = scene.log_in(PASSWORD).await.unwrap();
        assert!(scene.is_active(&after).await);
    }

    async fn a_key_of_a_clock_that_was_ahead_does_not_stop_the_rotation(engine: Engine) {
        let scene = Scene::new(engine).await;
        // The clock is ten years ahead for a minute, and the keys are rotated.
        scene.jump(Ahead(3_650 * DAY)).await;
        scene.jump(TO_THE_START).await;
        let now = NOW;
        let keys = scene.keys.list().await.unwrap();
        assert!(keys[0].created_at <= now && keys[0].signs_from <= now.plus(60 * MINUTE), "{keys:?}");
        // The first key signs until the new one does, and verifies until its last token has expired.
        assert!(keys.iter().any(|key| key.verifies_until == Some(now.plus(70 * MINUTE))), "{keys:?}");
        let tokens = scene.log_in(PASSWORD).await.unwrap();
        assert!(scene.is_active(&tokens).await);

        scene.jump(Ahead(61 * MINUTE)).await;
        let tokens = scene.log_in(PASSWORD).await.unwrap();
        assert!(scene.is_active(&tokens).await);
        scene.jump(Ahead(31 * DAY)).await;
        let rotated = scene.keys.list().await.unwrap();
        assert!(rotated[0].created_at > now.plus(30 * DAY), "{rotated:?}");
    }

    async fn sessions_and_links_of_a_clock_that_was_ahead_do_not_last_for_years(engine: Engine) {
        let scene = Scene::new(engine).await;
        scene.jump(Ahead(3_650 * DAY)).await;
        // As many sessions as a user may have.
        for _ in 0..9 {
            scene.log_in(PASSWORD).await.unwrap();
        }
        let session = scene.log_in(PASSWORD).await.unwrap();
        let link = scene.reset_link().await;

        scene.jump(TO_THE_START).await;

        assert!(scene.accounts.refresh_session(&session.refresh_token, &scene.origin).await.is_err());
        let tokens = scene.log_in(PASSWORD).await.unwrap();
        assert!(scene.is_active(&tokens).await);
        assert!(!scene.reset(&link).await);
        let link = scene.reset_link().await;
        assert!(scene.reset(&link).await);
    }

    async fn nothing_is_deleted_by_a_clock_that_has_jumped(engine: Engine) {
        for (pause, users) in [(DAY, 1), (Duration::ZERO, 0)] {
            let world = World::new(engine).await;
            let clock = Clock::manual(NOW);
            world.register("ada").await;
            let housekeeping = housekeeping(&world, &clock, pause);
            housekeeping.purge().await;
            assert_eq!(world.counts().users, 1);
            clock.set(NOW.plus(40 * DAY));
            housekeeping.purge().await;
            assert_eq!(world.counts().users, users, "{pause:?}");

            // A process that starts under the wrong clock compares it with the stored times.
            world.database.execute("DELETE FROM core_user");
            world.register("bob").await;
            let housekeeping = self::housekeeping(&world, &clock, pause);
            housekeeping.purge().await;
            assert_eq!(world.counts().users, users, "{pause:?}");
        }
    }

    async fn a_registration_replaces_no_user_by_a_clock_that_has_jumped(engine: Engine) {
        for (pause, replaced) in [(30 * DAY, false), (Duration::ZERO, true)] {
            // The clock jumps while the service runs.
            let scene = Scene::at(NOW, World::new(engine).await, pause).await;
            scene.register("ada").await.unwrap();
            scene.jump(Ahead(40 * DAY)).await;
            assert_eq!(scene.register("eve").await.is_ok(), replaced, "{pause:?}");
            assert_eq!(scene.owner().await, if replaced { "eve" } else { "ada" });

            // The clock is wrong when the service starts. The first registration is then refused although
            // nothing else has compared the clock with the stored times.
            let started = Scene::at(NOW, World::new(engine).await, pause).await;
            started.register("ada").await.unwrap();
            let scene = Scene::at(NOW.plus(40 * DAY), started.world, pause).await;
            assert_eq!(scene.register("eve").await.is_ok(), replaced, "{pause:?}");
            assert_eq!(scene.owner().await, if replaced { "eve" } else { "ada" });
        }
    }

    async fn a_day_without_events_is_noticed_wherever_it_is_in_the_period(engine: Engine) {
        // The days before the start at which events were stored, for a pause of seven days.
        for (events, is_paused) in [
            (&[9.0, 8.0, 7.1, 6.2, 5.3, 4.4, 3.5, 3.0][..], true),  // none for the last three days
            (&[7.5, 6.9, 6.2, 5.3, 4.4, 3.0, 2.1, 1.2, 0.3], true), // none for a day and a half in the middle
            (&[20.0, 6.9, 6.0, 5.1, 4.2, 3.3, 2.4, 1.5, 0.6], true), // none for days before the first
            (&[9.0, 7.9, 7.1, 6.2, 5.3, 4.4, 3.5, 2.6, 1.7, 0.8], false), // a day before the period
            (&[0.5], false),                                        // a new store
            (&[], false),
        ] {
            let world = World::new(engine).await;
            for days in events {
                let at = NOW.minus(DAY.mul_f64(*days));
                world.store.record_audit_events(vec![event(at)]).await.unwrap();
            }
            let silence = world.store.silence_of_audit(NOW.minus(7 * DAY), NOW, DAY).await.unwrap();
            assert_eq!(silence.is_some(), is_paused, "{events:?} {silence:?}");
        }
    }

    async fn a_clock_jump_revives_no_used_replaced_or_revoked_token(engine: Engine) {
        let scene = Scene::new(engine).await;
        let session = scene.log_in(PASSWORD).await.unwrap();
        let next = scene.accounts.refresh_session(&session.refresh_token, &scene.origin).await.unwrap();
        scene.accounts.log_out(&next.refresh_token, &scene.origin).await.unwrap();
        let replaced = scene.reset_link().await;
        let used = scene.reset_link().await;
        assert!(scene.reset(&used).await);

        // After 19 min the links have not expired (20 min), so they are refused because they were used or
        // replaced.
        for jump in [Back(MINUTE), Back(DAY), Ahead(19 * MINUTE)] {
            scene.jump(jump).await;
            assert!(!scene.reset(&used).await && !scene.reset(&replaced).await);
            for token in [&session.refresh_token, &next.refresh_token] {
                assert!(scene.accounts.refresh_session(token, &scene.origin).await.is_err());
            }
            assert!(!scene.is_active(&next).await);
        }
    }

    async fn a_throttle_survives_a_short_jump_back_and_does_not_last_for_years(engine: Engine) {
        let scene = Scene::new(engine).await;
        scene.jump(Ahead(400 * DAY)).await;
        for _ in 0..2 {
            assert!(matches!(scene.log_in("wrong").await, Err(AccountError::InvalidCredentials)));
        }
        assert!(matches!(scene.log_in(PASSWORD).await, Err(AccountError::TooManyAttempts { .. })));
        // The clock was 400 days ahead and is corrected: the throttle must not last for 400 days.
        scene.jump(TO_THE_START).await;
        scene.log_in(PASSWORD).await.unwrap();

        for _ in 0..2 {
            assert!(matches!(scene.log_in("wrong").await, Err(AccountError::InvalidCredentials)));
        }
        scene.jump(Back(10 * MINUTE)).await;
        assert!(matches!(scene.log_in(PASSWORD).await, Err(AccountError::TooManyAttempts { .. })));
        scene.jump(Ahead(16 * MINUTE)).await;
        scene.log_in(PASSWORD).await.unwrap();
    }
}

/// Timestamps outside the range of the calendar must not cause a panic.
#[test]
fn the_extreme_timestamps_cause_no_panic() {
    for micros in [i64::MIN, i64::MAX] {
        let end = Timestamp::from_unix_micros(micros);
        let _ = (end.plus(DAY), end.minus(DAY), end.whole_seconds(), end.since(NOW), end.to_string());
    }
}
