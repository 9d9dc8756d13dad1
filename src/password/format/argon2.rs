//! Parses and verifies `argon2$argon2id$v=19$m=102400,t=2,p=8$<salt>$<digest>`. The text after `argon2$` is a
//! PHC string without its leading `$`; salt and digest are in base64 without padding.

use ::argon2::{Algorithm, Params, Version, password_hash::phc::PasswordHash};
use subtle::ConstantTimeEq as _;

use super::parse_error::HashParseError;

/// 256 MiB; Django's default is 100 MiB.
pub(super) const MEMORY_KIB_MAX: u32 = 256 * 1_024;
/// Django's default is 2.
pub(super) const PASSES_MAX: u32 = 16;
/// Django's default is 8.
pub(super) const LANES_MAX: u32 = 16;
/// Memory (in KiB) times passes, to which the time is proportional: 1.7 s on the machine where Django's
/// default (204,800) takes 167 ms.
pub(super) const WORK_MAX: u32 = 1 << 21;
/// The version of a text without `v=`: the first version of the reference implementation.
const VERSION_DEFAULT: u32 = 0x10;

pub(in crate::password) struct Argon2 {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl Argon2 {
    pub(super) fn parse(text: &str) -> Result<Self, HashParseError> {
        let encoded = PasswordHash::new(&format!("${text}")).map_err(|_| HashParseError::Malformed)?;
        let (Some(salt), Some(digest)) = (&encoded.salt, &encoded.hash) else {
            return Err(HashParseError::Malformed);
        };

        Ok(Self {
            algorithm: Algorithm::try_from(encoded.algorithm.as_str())
                .map_err(|_| HashParseError::Malformed)?,
            version: encoded
                .version
                .unwrap_or(VERSION_DEFAULT)
                .try_into()
                .map_err(|_| HashParseError::Malformed)?,
            params: params_within_caps(&encoded)?,
            salt: salt.to_vec(),
            digest: digest.as_bytes().to_vec(),
        })
    }

    /// Returns memory times passes, to which the time is proportional.
    pub(super) fn work(&self) -> u64 {
        u64::from(self.params.m_cost()) * u64::from(self.params.t_cost())
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut computed = vec![0; self.digest.len()];
        let argon2 = ::argon2::Argon2::new(self.algorithm, self.version, self.params.clone());
        let outcome = argon2.hash_password_into(password, &self.salt, &mut computed);
        outcome.is_ok() && bool::from(computed.ct_eq(&self.digest))
    }
}

fn params_within_caps(encoded: &PasswordHash) -> Result<Params, HashParseError> {
    let params = Params::try_from(encoded).map_err(|_| HashParseError::Malformed)?;
    let within = params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX
        && params.m_cost() * params.t_cost() <= WORK_MAX;
    within.then_some(params).ok_or(HashParseError::TooExpensive)
}
