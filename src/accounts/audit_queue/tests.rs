use super::*;
use crate::domain::{AuditKind, AuthToken, ClientAddress, Origin};

const LIMITS: AuditLimits = AuditLimits { unauthenticated_max: 3, per_caller_max: 2, per_account_max: 2 };
const NOW: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

fn refusal(caller: &str, client: &str) -> QueuedEvent {
    let origin = Origin {
        peer: Some("192.0.2.1".parse().unwrap()),
        client: ClientAddress::parse(client).ok(),
        ..Origin::local(caller)
    };
    let event = AuditEvent::new(NOW, AuditKind::AuthnLoginFail, origin).with_reason("INVALID_CREDENTIALS");
    QueuedEvent { event, account: None }
}

fn about(user: u8, client: &str) -> QueuedEvent {
    let queued = refusal("bff", client);
    QueuedEvent { event: queued.event.with_user(Some(AuthToken::from_random([user; 16]))), ..queued }
}

fn from_peer(caller: &str, peer: &str, resource: &str) -> QueuedEvent {
    let origin = Origin { peer: Some(peer.parse().unwrap()), ..Origin::local(caller) };
    let event = AuditEvent::new(NOW, AuditKind::AuthzFail, origin).with_reason("CALLER_UNKNOWN");
    QueuedEvent { event: event.with_resource(resource), account: None }
}

fn arrange(window: &mut Window, queued: Vec<QueuedEvent>, now: Timestamp) -> Vec<AuditEvent> {
    window.arrange(queued, now).into_iter().map(|pending| pending.event).collect()
}

#[test]
fn refusals_of_unauthenticated_callers_are_counted_by_network_whatever_they_call() {
    let mut window = Window::new(LIMITS);
    let calls = (0..33).map(|number| from_peer("nobody", "192.0.2.1", &format!("method {number}")));
    let events = arrange(&mut window, calls.collect(), NOW);
    assert_eq!((events.len(), events[0].count), (1, 33));

    let two_networks = ["2001:db8:1:2::1", "2001:db8:1:2::ffff", "2001:db8:1:3::1"];
    let calls = two_networks.map(|peer| from_peer("nobody", peer, "method")).to_vec();
    let counts: Vec<_> = arrange(&mut window, calls, NOW).iter().map(|event| event.count).collect();
    assert_eq!(counts, [2, 1]);
}

#[test]
fn equal_events_of_a_minute_share_a_row() {
    let mut window = Window::new(LIMITS);
    let written = window.arrange(vec![refusal("bff", "192.0.2.7")], NOW);
    assert_eq!(written[0].row, None);
    window.remember(&written, &[5]);
    for (second, row) in [(1, Some(5)), (59, Some(5)), (60, None)] {
        let now = NOW.plus(Duration::from_secs(second));
        assert_eq!(window.arrange(vec![refusal("bff", "192.0.2.7")], now)[0].row, row, "{second}");
    }
    // The clock was set back by an hour.
    assert_eq!(window.arrange(vec![refusal("bff", "192.0.2.7")], NOW.minus(WINDOW * 60))[0].row, None);
}

#[test]
fn each_budget_is_its_own() {
    let mut window = Window::new(LIMITS);
    let unauthenticated = (0..100).map(|number| from_peer("nobody", &format!("198.51.100.{number}"), ""));
    let agents = (0..100).map(|number| refusal("agent", &format!("198.51.100.{number}")));
    let noise = unauthenticated.chain(agents).collect();
    let events = arrange(&mut window, noise, NOW);
    let counts: Vec<_> = events.iter().map(|event| (event.origin.caller.as_ref(), event.count)).collect();
    let expected = [[("nobody", 1); 3].as_slice(), &[("nobody", 97)], &[("agent", 1); 2], &[("agent", 98)]];
    assert_eq!(counts, expected.concat());

    let guesses = vec![refusal("bff", "192.0.2.7"), about(1, "192.0.2.7"), about(2, "192.0.2.7")];
    let events = arrange(&mut window, guesses, NOW);
    assert!(events.iter().all(|event| event.count == 1 && event.origin.client.is_some()), "{events:?}");
    assert_eq!(events.len(), 3);
}

#[test]
fn events_about_accounts_are_never_merged_over_accounts() {
    let mut window = Window::new(LIMITS);
    let guesses =
        (0..10).flat_map(|client| (0..50).map(move |user| about(user, &format!("192.0.2.{client}"))));
    let events = arrange(&mut window, guesses.collect(), NOW);
    for user in 0..50 {
        let user = AuthToken::from_random([user; 16]);
        let of_user: Vec<_> = events.iter().filter(|event| event.user == Some(user)).collect();
        assert_eq!(of_user.iter().map(|event| event.count).collect::<Vec<_>>(), [1, 1, 8]);
    }
    assert!(events.iter().all(|event| event.user.is_some()));
}

#[test]
fn waiting_events_are_bounded_and_reads_hide_no_refusal() {
    let mut waiting = Waiting::new(LIMITS);
    let account = |number: u32| AuthToken::from_uuid(uuid::Uuid::from_u128(u128::from(number)));
    let mut is_urgent = false;
    for number in 0..30_000 {
        let read = AuditEvent::new(NOW, AuditKind::SensitiveRead, Origin::local("bff"));
        is_urgent = waiting.add(QueuedEvent { event: read.with_user(Some(account(number))), account: None });
    }
    assert!(is_urgent);
    waiting.add(about(7, "192.0.2.7"));
    let events = waiting.take();
    // One read for each account up to the maximum, all further reads in one, and the refusal.
    assert_eq!(events.len(), ACCOUNTS_WAITING_MAX + 2);
    assert!(events.iter().any(|queued| queued.event.user == Some(AuthToken::from_random([7; 16]))));
    assert_eq!(events.iter().map(|queued| queued.event.count).sum::<u32>(), 30_001);
    assert!(waiting.take().is_empty());
}
