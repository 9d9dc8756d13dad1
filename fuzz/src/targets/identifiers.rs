//! Parses arbitrary bytes as identifiers, tokens and metadata of a caller, and as times of a command line.
//! Parsing the text of an accepted value must return the same value.

use kairos_identity::{
    callers::ServiceToken,
    domain::{
        AuthToken, CLIENT_AGENT_CHARACTERS_MAX, ClientAddress, ClientAgent, LinkToken, MailToken,
        RefreshToken, RequestId, SessionId, Timestamp,
    },
};

/// Runs one input.
pub fn run(bytes: &[u8]) {
    if let Some(agent) = ClientAgent::from_bytes_lossy(bytes) {
        assert!(agent.as_str().chars().count() <= CLIENT_AGENT_CHARACTERS_MAX);
        assert!(!agent.as_str().chars().any(char::is_control));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = AuthToken::parse(text) {
        assert_eq!(AuthToken::parse(&token.to_string()), Ok(token));
    }
    if let Ok(id) = RequestId::parse(text) {
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
    }
    if let Ok(id) = SessionId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(token) = RefreshToken::parse(text) {
        assert_eq!(token.expose(), text);
    }
    if let LinkToken::Mailed(token) = LinkToken::parse(text) {
        let again = MailToken::parse(&token.to_link_text()).expect("the link text of a token is valid");
        assert_eq!(again.digest(), token.digest());
    }
    if let Some(token) = ServiceToken::from_authorization(text) {
        let again = ServiceToken::from_authorization(&format!("Bearer {}", token.expose()));
        assert_eq!(again, Some(token));
    }
    if let Ok(address) = ClientAddress::parse(text) {
        assert!(matches!(address.octets().len(), 4 | 16));
        let shown = address.to_string();
        assert_eq!(ClientAddress::from_displayed(&shown), Some(address));
    }
    if let Some(at) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
    }
}
