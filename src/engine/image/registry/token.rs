//! Bearer tokens: where a registry's challenge sends us to fetch one (distribution's "Token Authentication" and
//! "OAuth2 Token Authentication").

use std::io::Read;

use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::{Credential, basic};
use super::http::{self, Http, Method, Request};
use crate::engine::image::error::ImageError;

const ANSWER_MAX: u64 = 1 << 20;

/// Where a token is to be had.
pub struct Realm<'a> {
    pub challenge: &'a Challenge,
    /// The registry is on this host, and so may be what it names.
    pub is_local: bool,
}

/// Why there is no token.
pub enum TokenError {
    /// The credentials, or their absence, did not suffice.
    Refused(String),
    Other(ImageError),
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The `Authorization` to go on with.
pub fn fetch(
    http: &Http,
    Realm { challenge, is_local }: Realm<'_>,
    repository: &str,
    credential: Option<&Credential>,
) -> Result<String, TokenError> {
    let realm = challenge.get("realm").unwrap_or_default();
    // The realm is the registry's word. Credentials go nowhere in the clear, except within this host.
    let secure = realm.starts_with("https://") || (is_local && http::authority(realm).is_some_and(http::is_loopback));
    if !secure {
        return Err(TokenError::Refused(format!("it sends us to `{realm}`, which is not secure")));
    }
    let default_scope = format!("repository:{repository}:pull");
    let scope = challenge.get("scope").filter(|scope| !scope.is_empty()).unwrap_or(&default_scope);
    let mut query = vec![("scope", scope)];
    query.extend(challenge.get("service").map(|service| ("service", service)));
    let response = match credential {
        Some(Credential::Identity(token)) => {
            query.extend([("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "evenkeel")]);
            http.post_form(realm, &query)
        }
        other => {
            let pairs: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
            let separator = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{separator}{}", pairs.join("&"));
            let authorization = match other {
                Some(Credential::Basic { user, password }) => Some(basic(user, password)),
                _ => None,
            };
            http.send(&Request { authorization: authorization.as_deref(), ..Request::new(Method::Get, &url) })
        }
    };
    let response = response.map_err(TokenError::Other)?;
    if !response.is_success() {
        return Err(TokenError::Refused(response.into_detail()));
    }
    let mut bytes = Vec::new();
    let read = response.into_reader().take(ANSWER_MAX).read_to_end(&mut bytes);
    let answer = read.ok().and_then(|_| serde_json::from_slice::<Answer>(&bytes).ok());
    let token = answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
    match token {
        Some(token) => Ok(format!("Bearer {token}")),
        None => Err(TokenError::Refused(format!("`{realm}` gave no token"))),
    }
}

/// Percent-encoding for a query (RFC 3986, 2.3: unreserved characters stay).
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                encoded.push(byte.into())
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("repository:a/b:pull,push"), "repository:a/b:pull%2Cpush");
        assert_eq!(encode("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
