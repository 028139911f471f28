//! Signatures of Standard Webhooks (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::notify::secret::Secret;

/// A key has at least this many bytes, as the specification wants.
pub(super) const MIN_KEY: usize = 24;

/// The header `webhook-signature` for a message.
///
/// # Errors
/// If the key is none. Says nothing of what it is.
pub(super) fn signature(
    secret: &Secret,
    id: &str,
    timestamp: &str,
    body: &[u8],
) -> Result<String, String> {
    let raw = secret.bytes();
    let key = match raw.strip_prefix(b"whsec_") {
        None => raw.to_vec(),
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| {
            "hmac.key_file: what follows whsec_ is not base64: write the key anew".to_owned()
        })?,
    };
    if key.len() < MIN_KEY {
        return Err(format!(
            "hmac.key_file: the key has {} bytes: make one of {MIN_KEY} or more, such as by `openssl rand -base64 32`",
            key.len()
        ));
    }
    let mut signed = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        signed.update(part);
    }
    Ok(format!("v1,{}", BASE64_STANDARD.encode(signed.sign())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn signs_as_others_do() {
        let key = Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = signature(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_key() {
        for key in ["short", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!"] {
            let why = signature(&Secret::from(key), "i", "1", b"").unwrap_err();
            assert!(why.contains("key_file") && !why.contains(key), "{why}");
        }
        assert!(signature(&Secret::from("x".repeat(24).as_str()), "i", "1", b"").is_ok());
    }
}
