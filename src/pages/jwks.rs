//! The public keys that access tokens are verified with (RFC 7517, RFC 8037), as `SessionService.GetJwks` gives them.

use std::time::Duration;

use serde::Serialize;

use super::reply::Reply;
use crate::accounts::Accounts;

/// RFC 7517, section 8.5.1
const CONTENT_TYPE: &str = "application/jwk-set+json";

/// The longest: a key that was revoked should soon be forgotten.
const KEPT_MAX: Duration = Duration::from_mins(5);

#[derive(Serialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Serialize)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    kid: String,
    alg: &'static str,
    r#use: &'static str,
}

/// They may be kept for `kept`, and five minutes at most.
pub(super) fn reply(accounts: &Accounts, kept: Duration) -> Reply {
    let keys = accounts.public_keys().into_iter().map(|key| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        x: key.x,
        kid: key.id.as_str().to_owned(),
        alg: "EdDSA",
        r#use: "sig",
    });
    let set = JwkSet { keys: keys.collect() };
    let json = serde_json::to_string(&set).expect("texts become JSON");
    Reply::public(CONTENT_TYPE, kept.min(KEPT_MAX), json)
}
