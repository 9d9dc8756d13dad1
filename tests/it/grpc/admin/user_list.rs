//! `AdminService`: the filters and page tokens of `ListUsers`.

use kairos_identity::proto::{ListAuditEventsRequest, ListUsersRequest, RegisterRequest};
use prost_types::Timestamp;

use super::{client, disable};
use crate::support::{
    errors::violations,
    people::{address, registration},
    server::TestServer,
};

/// Lists the matching users in pages of at most `size`, and returns the usernames of all pages.
async fn names(server: &TestServer, filter: ListUsersRequest, size: i32) -> Vec<String> {
    let mut request = ListUsersRequest { page_size: size, ..filter };
    let mut names = Vec::new();
    loop {
        let page = client(server).await.list_users(request.clone()).await.unwrap().into_inner();
        assert!(page.users.len() <= usize::try_from(size).unwrap());
        names.extend(page.users.into_iter().map(|found| found.user.unwrap().username));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return names;
        }
    }
}

on_both_engines! {
    async fn list_users_filters_by_state_creation_time_and_text(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.unverified_user("Strasse_1").await;
        let percent = RegisterRequest { email: address("percent"), ..registration("50% off") };
        server.client().await.register(percent).await.unwrap();
        disable(&server, &ada.auth_token).await;
        let all = ["ada", "Strasse_1", "50% off"];
        let list = async |filter| names(&server, filter, 100).await;
        let with_text = async |text: &str| list(ListUsersRequest { text: text.into(), ..ListUsersRequest::default() }).await;
        let created = ada.created_at.unwrap();

        for size in [1, 2, 3, 1_000] {
            assert_eq!(names(&server, ListUsersRequest::default(), size).await, all, "{size}");
        }
        assert_eq!(list(ListUsersRequest { is_verified: Some(true), ..ListUsersRequest::default() }).await, ["ada"]);
        assert_eq!(list(ListUsersRequest { is_verified: Some(false), ..ListUsersRequest::default() }).await, all[1..]);
        assert_eq!(list(ListUsersRequest { is_disabled: Some(true), ..ListUsersRequest::default() }).await, ["ada"]);
        assert_eq!(list(ListUsersRequest { is_disabled: Some(false), ..ListUsersRequest::default() }).await, all[1..]);
        assert_eq!(list(ListUsersRequest { created_before: Some(created), ..ListUsersRequest::default() }).await, [""; 0]);
        assert_eq!(list(ListUsersRequest { created_since: Some(created), ..ListUsersRequest::default() }).await, all);
        assert_eq!(with_text("STRA\u{df}E").await, ["Strasse_1"], "the text matches usernames in their comparison form");
        assert_eq!(with_text("ADA@EX").await, ["ada"], "the text matches emails in any case");
        for (text, found) in [("_", "Strasse_1"), ("%", "50% off"), ("0% O", "50% off")] {
            assert_eq!(with_text(text).await, [found], "{text} is matched literally");
        }
        for text in ["\\", "'; DROP TABLE core_user; --", "unknown"] {
            assert_eq!(with_text(text).await, [""; 0], "{text}");
        }
    }

    async fn a_page_token_works_only_for_its_own_list_and_filter(engine: Engine) {
        let server = TestServer::start(engine).await;
        for name in ["ada", "bob"] {
            server.unverified_user(name).await;
        }
        let first = ListUsersRequest { page_size: 1, ..ListUsersRequest::default() };
        let token = client(&server).await.list_users(first.clone()).await.unwrap().into_inner().next_page_token;
        let next = ListUsersRequest { page_token: token.clone(), page_size: 7, ..first.clone() };
        assert_eq!(client(&server.second_instance().await).await.list_users(next.clone()).await.unwrap().into_inner().users.len(), 1);

        let faulty = [
            (ListUsersRequest { is_verified: Some(false), ..next.clone() }, "page_token"),
            (ListUsersRequest { page_token: "MQ".into(), ..first.clone() }, "page_token"),
            (ListUsersRequest { page_size: -1, ..first.clone() }, "page_size"),
            (ListUsersRequest { page_size: 1_001, ..first.clone() }, "page_size"),
            (ListUsersRequest { text: "a".repeat(255), ..first.clone() }, "text"),
            (ListUsersRequest { text: "\0".into(), ..first.clone() }, "text"),
            (ListUsersRequest { created_since: Some(Timestamp { seconds: i64::MIN, nanos: 0 }), ..first.clone() }, "created_since"),
            (ListUsersRequest { created_before: Some(Timestamp { seconds: 0, nanos: -1 }), ..first }, "created_before"),
        ];
        for (request, field) in faulty {
            let refusal = client(&server).await.list_users(request).await.unwrap_err();
            assert_eq!(violations(&refusal)[0].0, field);
        }
        let foreign = ListAuditEventsRequest { page_token: token, caller: "\0".into(), kinds: vec!["user_lost".into()], ..ListAuditEventsRequest::default() };
        let refusal = client(&server).await.list_audit_events(foreign).await.unwrap_err();
        let fields: Vec<_> = violations(&refusal).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["page_token", "kinds[0]", "caller"]);
    }
}
