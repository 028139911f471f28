//! Names and passwords (RFC 7617), verified against bcrypt hashes.
//!
//! To verify one takes a processor for a tenth of a second and more, by design. So what was verified is remembered, as a keyed hash; one is verified at a time,
//! whoever asks; and what was refused is remembered apart, so that guesses push out no good login. Whether a name exists shows neither in words nor in time.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use base64::Engine as _;
use lru::LruCache;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::file::Hash;

/// Logins that are remembered, good and bad each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);
/// Longest header that is looked at: bytes.
const MAX_HEADER: usize = 1024;
/// The hash of nothing that anybody knows, for names that do not exist; without its cost.
const NOBODY: &str = "$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// Who may log in.
pub(super) struct Login {
    users: Arc<BTreeMap<String, Hash>>,
    nobody: String,
    key: hmac::Key,
    good: Mutex<LruCache<[u8; 32], ()>>,
    bad: Mutex<LruCache<[u8; 32], ()>>,
    one_at_a_time: Arc<Semaphore>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("users", &self.users()).finish_non_exhaustive()
    }
}

impl Login {
    /// `None` if nobody needs to.
    pub(super) fn new(users: &BTreeMap<String, Hash>) -> Result<Option<Self>, String> {
        let Some(cost) = users.values().map(|hash| hash.cost).max() else { return Ok(None) };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "basic_auth_users: the kernel gives no random numbers".to_owned())?;
        Ok(Some(Self {
            users: Arc::new(users.clone()),
            nobody: format!("$2y${cost:02}{NOBODY}"),
            key,
            good: Mutex::new(LruCache::new(REMEMBERED)),
            bad: Mutex::new(LruCache::new(REMEMBERED)),
            one_at_a_time: Arc::new(Semaphore::new(1)),
        }))
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Whether the header `Authorization` lets one in.
    pub(super) async fn lets(&self, header: Option<&HeaderValue>) -> bool {
        let Some((name, password)) = header.and_then(credentials) else { return false };
        let tag = self.tag(&name, &password);
        if let Some(known) = self.remembered(tag) {
            return known;
        }
        let Ok(turn) = Arc::clone(&self.one_at_a_time).acquire_owned().await else { return false };
        // Somebody may have asked for the same, and waited less.
        if let Some(known) = self.remembered(tag) {
            return known;
        }
        let (users, nobody) = (Arc::clone(&self.users), self.nobody.clone());
        let verified = tokio::task::spawn_blocking(move || {
            // Until it is done, also if whoever asked is gone.
            let _turn = turn;
            let hash = users.get(&name).map_or(nobody.as_str(), |hash| &hash.text);
            let fits = bcrypt::verify(password, hash).unwrap_or(false);
            fits && users.contains_key(&name)
        });
        let lets = verified.await.unwrap_or(false);
        let memory = if lets { &self.good } else { &self.bad };
        memory.lock().unwrap_or_else(PoisonError::into_inner).put(tag, ());
        lets
    }

    /// Keeps anything from being verified.
    #[cfg(test)]
    pub(super) async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.one_at_a_time.acquire().await.unwrap()
    }

    fn remembered(&self, tag: [u8; 32]) -> Option<bool> {
        let knows = |memory: &Mutex<LruCache<[u8; 32], ()>>| {
            memory.lock().unwrap_or_else(PoisonError::into_inner).get(&tag).is_some()
        };
        if knows(&self.good) { Some(true) } else { knows(&self.bad).then_some(false) }
    }

    fn tag(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name.as_bytes());
        context.update(password);
        context.sign().as_ref().try_into().unwrap_or_default()
    }
}

/// Name and password in a header.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_HEADER {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded.get(..colon)?.to_vec()).ok()?;
    Some((name, decoded.get(colon + 1..)?.to_vec()))
}
