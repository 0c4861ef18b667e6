//! Sealing: AES-256-GCM under a key that is made for one message.
//!
//! A key's material lies in the database sealed under a key that is derived of `DIR/master.key`; what callers encrypt is
//! sealed under the material. Every message has a salt of its own, and with it a key of its own, so that the number of
//! messages under one material has no bound that matters.

use hmac::{Hmac, KeyInit, Mac};
use isolarium_model::time::IdSource;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;

/// Bytes of a salt.
const SALT: usize = 16;

/// Why a message cannot be sealed or opened; nothing more is told, as it would help who tries.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be sealed or opened")]
pub struct Refused;

/// `count` bytes that cannot be guessed.
pub fn random(ids: &dyn IdSource, count: usize) -> Result<Vec<u8>, Refused> {
    hex::decode(ids.hex(count.saturating_mul(2))).map_err(|_| Refused)
}

fn message_key(key: &[u8], salt: &[u8]) -> Result<LessSafeKey, Refused> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| Refused)?;
    mac.update(b"isolarium kms message");
    mac.update(salt);
    let bytes = mac.finalize().into_bytes();
    let unbound = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| Refused)?;
    Ok(LessSafeKey::new(unbound))
}

/// Salt, nonce, and the sealed text with its tag. `context` is bound to it and not in it.
///
/// # Errors
/// When the library refuses.
pub fn seal(key: &[u8], ids: &dyn IdSource, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, Refused> {
    let (salt, nonce) = (random(ids, SALT)?, random(ids, NONCE_LEN)?);
    let mut text = plain.to_vec();
    let unique = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| Refused)?;
    message_key(key, &salt)?
        .seal_in_place_append_tag(unique, Aad::from(context), &mut text)
        .map_err(|_| Refused)?;
    Ok([salt, nonce, text].concat())
}

/// What [`seal`] sealed, if key and context are the same and nothing was changed.
///
/// # Errors
/// When they are not.
pub fn open(key: &[u8], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Refused> {
    let (salt, rest) = sealed.split_at_checked(SALT).ok_or(Refused)?;
    let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(Refused)?;
    let mut text = text.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refused)?;
    let plain = message_key(key, salt)?
        .open_in_place(nonce, Aad::from(context), &mut text)
        .map_err(|_| Refused)?;
    Ok(plain.to_vec())
}
