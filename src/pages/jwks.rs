//! The public keys that verify access tokens, as a JSON Web Key Set (RFC 7517, RFC 8037), the same that
//! `SessionService.GetJwks` returns.

use std::time::Duration;

use serde::Serialize;

use super::reply::Reply;
use crate::accounts::Accounts;

/// The media type of a key set (RFC 7517, section 8.5.1).
const CONTENT_TYPE: &str = "application/jwk-set+json";

/// The maximum time that clients may cache the keys, so that they soon drop a revoked key.
const MAX_AGE_LIMIT: Duration = Duration::from_mins(5);

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

/// Returns the keys. Clients may cache them for `max_age`, but at most [`MAX_AGE_LIMIT`].
pub(super) fn reply(accounts: &Accounts, max_age: Duration) -> Reply {
    let keys = accounts.public_keys().into_iter().map(|key| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        x: key.x,
        kid: key.id.as_str().to_owned(),
        alg: "EdDSA",
        r#use: "sig",
    });
    let set = JwkSet { keys: keys.collect() };
    let json = serde_json::to_string(&set).expect("strings serialize to JSON");
    Reply::cacheable(CONTENT_TYPE, max_age.min(MAX_AGE_LIMIT), json)
}
