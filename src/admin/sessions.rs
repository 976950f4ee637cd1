//! People who signed in with the token: a browser sends a cookie in its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::COOKIE;
use tokio::time::Instant;

/// How long one lasts.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// How many there are at one time; the oldest give way.
const MOST: usize = 100;
const COOKIE_NAME: &str = "levada_session";

/// The sessions of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Sessions {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Instant>) -> T) -> T {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, begun| begun.elapsed() < LIFE);
        act(&mut sessions)
    }

    /// Begins one; what the browser is to keep.
    pub(super) fn begin(&self) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        self.with(|sessions| {
            while sessions.len() >= MOST {
                let oldest = sessions.iter().min_by_key(|(_, begun)| **begun);
                let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                    break;
                };
                sessions.remove(&oldest);
            }
            sessions.insert(id.clone(), Instant::now());
        });
        format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Strict")
    }

    /// Whether a request belongs to one.
    pub(super) fn has(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(COOKIE).iter();
        let mut given = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='));
        self.with(|sessions| given.any(|id| sessions.contains_key(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookie.parse().unwrap());
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_known_until_they_end() {
        let sessions = Sessions::default();
        let cookie = sessions.begin();
        let pair = cookie.split(';').next().unwrap();
        assert!(sessions.has(&headers(&format!("zone=local; {pair}"))));
        assert!(!sessions.has(&headers("levada_session=0")));
        assert!(!sessions.has(&HeaderMap::new()));
        for _ in 0..MOST {
            tokio::time::advance(Duration::from_millis(1)).await;
            sessions.begin();
        }
        assert!(!sessions.has(&headers(pair)), "the oldest gives way");
        let cookie = sessions.begin();
        let pair = cookie.split(';').next().unwrap();
        tokio::time::advance(LIFE).await;
        assert!(!sessions.has(&headers(pair)));
    }
}
