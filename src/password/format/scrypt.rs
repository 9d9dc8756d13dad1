//! `scrypt$<N>$<salt>$<r>$<p>$<digest>`: the salt counts as its text, the digest is standard base64 of 64 bytes.

use ::scrypt::{Params, scrypt};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq as _;

use super::{Unreadable, parameter};

/// With r at its cap, N at its cap takes 256 MiB (128·N·r bytes); Django's own 2¹⁴ and 8 take 16.
const N_MAX: u32 = 1 << 17;
const R_MAX: u32 = 16;
const P_MAX: u32 = 16;
/// N·r·p, which the time follows: 1.6 s where Django's own (0.66 million) takes 124 ms.
const WORK_MAX: u32 = 1 << 23;
const DIGEST_BYTES: usize = 64;

pub(in crate::password) struct Scrypt {
    params: Params,
    salt: String,
    digest: Vec<u8>,
}

impl Scrypt {
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        let [n, salt, r, p, digest] =
            text.split('$').collect::<Vec<_>>().try_into().map_err(|_| Unreadable::Malformed)?;
        let digest = STANDARD.decode(digest).map_err(|_| Unreadable::Malformed)?;

        if salt.is_empty() || digest.len() != DIGEST_BYTES {
            return Err(Unreadable::Malformed);
        }
        // Last, so that only what is a hash otherwise is told to be too expensive.
        let params = params(parameter(n, N_MAX)?, parameter(r, R_MAX)?, parameter(p, P_MAX)?)?;
        Ok(Self { params, salt: salt.to_owned(), digest })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut computed = [0; DIGEST_BYTES];
        let outcome = scrypt(password, self.salt.as_bytes(), &self.params, &mut computed);
        outcome.is_ok() && bool::from(computed.ct_eq(&self.digest))
    }
}

fn params(n: u32, r: u32, p: u32) -> Result<Params, Unreadable> {
    if n < 2 || !n.is_power_of_two() {
        return Err(Unreadable::Malformed);
    }
    if n * r * p > WORK_MAX {
        return Err(Unreadable::TooExpensive);
    }
    let log_n = u8::try_from(n.ilog2()).map_err(|_| Unreadable::Malformed)?;
    Params::new(log_n, r, p).map_err(|_| Unreadable::Malformed)
}
