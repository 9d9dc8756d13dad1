//! Notices by mail of a deletion, a disabling, and a login from a new address.

use kairos_identity::proto::{
    DeleteAccountRequest, DeleteUserRequest, DisableUserRequest, RegisterRequest,
    account_service_client::AccountServiceClient, admin_service_client::AdminServiceClient,
};

use crate::support::{
    engine::TestDatabase,
    mail::{mails_to, newest_mail, wait_for_mails},
    people::{PASSWORD, address, from, login, registration},
    server::TestServer,
    sessions::{acting, log_in},
};

on_both_engines! {
    async fn a_deletion_is_notified_to_the_verified_address(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let deletion = DeleteAccountRequest { current_password: PASSWORD.into() };
        AccountServiceClient::new(server.channel().await).delete_account(acting(&tokens, deletion)).await.unwrap();
        let bob = server.member("bob").await;
        let mut admin = AdminServiceClient::new(server.channel().await);
        admin.delete_user(DeleteUserRequest { auth_token: bob.auth_token }).await.unwrap();
        let cyd = server.member("cyd").await;
        let deleted = server.command(&["user", "delete", "--yes", &cyd.auth_token]).output().unwrap();
        assert!(deleted.status.success(), "{deleted:?}");

        for name in ["ada", "bob", "cyd"] {
            let mail = newest_mail(&server, &address(name), 2).await;
            assert!(mail.text.starts_with("Hello,") && mail.text.contains("account was deleted on"), "{mail:?}");
        }
        server.logged("account_deleted").await;
        let kept = "SELECT recipient AS value FROM core_mail_outbox";
        let rows = async || Some(database.rows(kept)).filter(Vec::is_empty);
        crate::support::wait::until("no address of a deleted user is kept", LIMIT, rows).await;
    }

    async fn a_disabling_is_notified_to_the_verified_address(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let bob = server.member("bob").await;
        let mut admin = AdminServiceClient::new(server.channel().await);
        for _ in 0..2 {
            let request = DisableUserRequest { auth_token: ada.auth_token.clone() };
            admin.disable_user(request).await.unwrap();
        }
        let disabled = server.command(&["user", "disable", &bob.auth_token]).output().unwrap();
        assert!(disabled.status.success(), "{disabled:?}");

        for name in ["ada", "bob"] {
            let mail = newest_mail(&server, &address(name), 2).await;
            let hello = format!("Hello {name},");
            assert!(mail.text.starts_with(&hello) && mail.text.contains("was disabled on"), "{mail:?}");
        }
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 2, "one notice for one change");
    }

    async fn an_unverified_address_gets_neither_notice(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut admin = AdminServiceClient::new(server.channel().await);
        let (ada, bob) = (server.unverified_user("ada").await, server.unverified_user("bob").await);
        for name in ["ada", "bob"] {
            newest_mail(&server, &address(name), 1).await;
        }
        admin.disable_user(DisableUserRequest { auth_token: ada.auth_token }).await.unwrap();
        admin.delete_user(DeleteUserRequest { auth_token: bob.auth_token }).await.unwrap();
        // A later mail shows that the earlier ones would have arrived.
        server.unverified_user("cyd").await;
        newest_mail(&server, &address("cyd"), 1).await;

        for name in ["ada", "bob"] {
            assert_eq!(mails_to(&server.mail_folder(), &address(name)).len(), 1, "{name}");
        }
    }

    async fn a_login_from_a_new_address_is_notified_if_the_setting_is_on(engine: Engine) {
        for (setting, notices) in [("false", 0), ("true", 2)] {
            let server = TestServer::builder(engine)
                .with_env("KAIROS_IDENTITY_CLIENT_NOTIFY_NEW_ADDRESS", setting)
                .start()
                .await;
            server.member("ada").await;
            // With the setting on: one notice for the first login from each of the two addresses.
            for client in ["192.0.2.1", "192.0.2.1", "198.51.100.7", "192.0.2.1"] {
                server.client().await.login(from(client, login("ada", PASSWORD))).await.unwrap();
            }
            // Without the address of an end user there is no notice.
            log_in(&server, "ada").await;
            // A later mail shows that the earlier ones would have arrived.
            server.unverified_user("bob").await;
            newest_mail(&server, &address("bob"), 1).await;

            let mails = wait_for_mails(&server, &address("ada"), 1 + notices).await;
            assert_eq!(mails.len(), 1 + notices, "{mails:?}");
            let notified = mails.iter().filter(|mail| mail.text.contains("not used before")).count();
            assert_eq!(notified, notices);
        }
    }

    async fn others_cannot_use_up_the_notices_of_logins(engine: Engine) {
        let server =
            TestServer::builder(engine).with_env("KAIROS_IDENTITY_CLIENT_NOTIFY_NEW_ADDRESS", "true").start().await;
        server.member("ada").await;
        for _ in 0..5 {
            let again = RegisterRequest { email: address("ada"), ..registration("eve") };
            server.client().await.register(again).await.unwrap_err();
        }
        server.client().await.login(from("192.0.2.1", login("ada", PASSWORD))).await.unwrap();
        // The link, three notices of attempted registrations, and that of the login.
        let mails = wait_for_mails(&server, &address("ada"), 5).await;
        assert!(mails.iter().any(|mail| mail.text.contains("not used before")), "{mails:?}");
    }
}

/// Time limit for the outbox to drain.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
