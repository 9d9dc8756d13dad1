//! Parses and verifies `scrypt$<N>$<salt>$<r>$<p>$<digest>`. The bytes of the salt's text are the salt; the
//! digest has 64 bytes and is in standard base64.

use ::scrypt::{Params, scrypt};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq as _;

use super::parse_error::{HashParseError, parameter};

/// With N and r at their caps, scrypt needs 256 MiB (128 * N * r bytes). With Django's defaults, 2^14 and 8,
/// it needs 16 MiB.
pub(super) const N_MAX: u32 = 1 << 17;
pub(super) const R_MAX: u32 = 16;
/// Django's default is 5.
pub(super) const P_MAX: u32 = 16;
/// N * r * p, to which the time is proportional: 1.6 s on the machine where Django's default (0.66 million)
/// takes 124 ms.
pub(super) const WORK_MAX: u32 = 1 << 23;
const DIGEST_BYTES: usize = 64;

pub(in crate::password) struct Scrypt {
    params: Params,
    salt: String,
    digest: Vec<u8>,
}

impl Scrypt {
    pub(super) fn parse(text: &str) -> Result<Self, HashParseError> {
        let [n, salt, r, p, digest] =
            text.split('$').collect::<Vec<_>>().try_into().map_err(|_| HashParseError::Malformed)?;
        let digest = STANDARD.decode(digest).map_err(|_| HashParseError::Malformed)?;

        if salt.is_empty() || digest.len() != DIGEST_BYTES {
            return Err(HashParseError::Malformed);
        }
        // Checked last, so that only an otherwise valid hash is reported as too expensive.
        let params = params(parameter(n, N_MAX)?, parameter(r, R_MAX)?, parameter(p, P_MAX)?)?;
        Ok(Self { params, salt: salt.to_owned(), digest })
    }

    /// Returns N * r * p, to which the time is proportional.
    pub(super) fn work(&self) -> u64 {
        (u64::from(self.params.r()) * u64::from(self.params.p())) << self.params.log_n()
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut computed = [0; DIGEST_BYTES];
        let outcome = scrypt(password, self.salt.as_bytes(), &self.params, &mut computed);
        outcome.is_ok() && bool::from(computed.ct_eq(&self.digest))
    }
}

/// Checks that N is a power of two and that the product is within its cap.
fn params(n: u32, r: u32, p: u32) -> Result<Params, HashParseError> {
    if n < 2 || !n.is_power_of_two() {
        return Err(HashParseError::Malformed);
    }
    if n * r * p > WORK_MAX {
        return Err(HashParseError::TooExpensive);
    }
    let log_n = u8::try_from(n.ilog2()).map_err(|_| HashParseError::Malformed)?;
    Params::new(log_n, r, p).map_err(|_| HashParseError::Malformed)
}
