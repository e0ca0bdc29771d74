//! Bearer tokens: where a registry's challenge sends us to fetch one (distribution's "Token Authentication" and
//! "OAuth2 Token Authentication"), and those that are still good.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::{Credential, basic};
use super::http::{self, Http, Method, Payload, Request};
use super::scope::Scopes;
use crate::engine::image::error::ImageError;
use crate::model::id::Digest;

const ANSWER_MAX: u64 = 1 << 20;
/// How long a token is good that does not say so (distribution, "Token Response Fields").
const USUAL_LIFE: Duration = Duration::from_secs(60);
/// A token is not used so shortly before its end that it could be late.
const MARGIN: Duration = Duration::from_secs(5);

/// The tokens that this process has, each for whom, where, and what for. Shared by all who ask registries.
#[derive(Default)]
pub struct Tokens {
    known: Mutex<BTreeMap<Key, Slot>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The fingerprint of the credential, none for whoever comes without.
    who: Option<Digest>,
    realm: String,
    service: String,
    scopes: String,
}

/// Locked while the token is fetched, so that of several who want it one asks.
type Slot = Arc<Mutex<Option<Token>>>;

struct Token {
    authorization: String,
    until: Instant,
}

/// Says nothing of what it holds.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// What a token is asked for with.
pub struct Wanted<'a> {
    pub http: &'a Http,
    pub challenge: &'a Challenge,
    /// `https://registry.example.org`: what has sent us.
    pub base: &'a str,
    pub scopes: &'a Scopes,
    pub credential: Option<&'a Credential>,
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
    expires_in: Option<u64>,
}

impl Tokens {
    /// A text of the other side without the tokens that we have: some repeat what they were sent.
    pub fn taken_out_of(&self, text: String) -> String {
        let slots: Vec<Slot> = self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        slots.iter().fold(text, |text, slot| {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            match slot.as_ref().and_then(|token| token.authorization.strip_prefix("Bearer ")) {
                Some(token) => text.replace(token, "***"),
                None => text,
            }
        })
    }

    /// The `Authorization` to go on with: one that is known and still good, but not `refused`; or a new one.
    pub fn authorization(&self, wanted: &Wanted<'_>, refused: Option<&str>) -> Result<String, TokenError> {
        let scopes = match wanted.challenge.get("scope") {
            Some(asked) => wanted.scopes.with(asked),
            None => wanted.scopes.clone(),
        };
        let key = Key {
            who: wanted.credential.map(Credential::fingerprint),
            realm: wanted.challenge.get("realm").unwrap_or_default().to_owned(),
            service: wanted.challenge.get("service").unwrap_or_default().to_owned(),
            scopes: scopes.to_string(),
        };
        let slot = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*slot
            && Some(token.authorization.as_str()) != refused
            && Instant::now() < token.until
        {
            return Ok(token.authorization.clone());
        }
        *slot = None;
        let token = fetch(wanted, &scopes)?;
        Ok(slot.insert(token).authorization.clone())
    }
}

fn fetch(wanted: &Wanted<'_>, scopes: &Scopes) -> Result<Token, TokenError> {
    let Wanted { http, challenge, base, credential, .. } = wanted;
    let realm = challenge.get("realm").unwrap_or_default();
    if !is_fit_for_secrets(realm, base) {
        return Err(TokenError::Refused(format!("it sends us to `{}`, which is not secure", http::bare(realm))));
    }
    let asked_at = Instant::now();
    let scopes: Vec<String> = scopes.iter().map(|scope| scope.to_string()).collect();
    let service = challenge.get("service").filter(|service| !service.is_empty());
    let response = match credential {
        Some(Credential::Identity(token)) => {
            let grant = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
            post(http, realm, &grant, service, &scopes)
        }
        Some(Credential::Basic { user, password }) => {
            match get(http, realm, service, &scopes, Some(&basic(user, password))) {
                // One that knows only the other flow.
                Ok(response) if matches!(response.status(), 404 | 405) => {
                    let grant = [("grant_type", "password"), ("username", user.as_str()), ("password", password)];
                    post(http, realm, &grant, service, &scopes)
                }
                answered => answered,
            }
        }
        None => get(http, realm, service, &scopes, None),
    };
    let response = response.map_err(TokenError::Other)?;
    if matches!(response.status(), 429 | 500..) {
        let status = response.status();
        let (url, detail) = (http::bare(realm).to_owned(), response.into_detail());
        return Err(TokenError::Other(ImageError::Refused { url, status, detail }));
    }
    if !response.is_success() {
        return Err(TokenError::Refused(response.into_detail()));
    }
    let bytes = response.into_bytes(ANSWER_MAX);
    let answer = bytes.ok().and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).ok());
    let life = answer.as_ref().and_then(|answer| answer.expires_in).map_or(USUAL_LIFE, Duration::from_secs);
    let token = answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
    match token {
        // A year is for ever, and some say more than a clock can hold.
        Some(token) => Ok(Token {
            authorization: format!("Bearer {token}"),
            until: asked_at + life.min(Duration::from_secs(365 * 86400)).saturating_sub(MARGIN),
        }),
        None => Err(TokenError::Refused(format!("`{}` gave no token", http::bare(realm)))),
    }
}

/// The realm is the registry's word. Credentials go nowhere in the clear, except within this host and to a host that
/// is reached so anyway.
fn is_fit_for_secrets(realm: &str, base: &str) -> bool {
    if realm.starts_with("https://") {
        return true;
    }
    let (Some(theirs), Some(ours)) = (http::authority(realm), http::authority(base)) else { return false };
    let plain = realm.starts_with("http://") && base.starts_with("http://");
    let both_here = http::is_loopback(theirs) && http::is_loopback(ours);
    plain && (both_here || http::host(theirs) == http::host(ours))
}

fn get(
    http: &Http,
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    authorization: Option<&str>,
) -> Result<http::Response, ImageError> {
    let query = form(&[], service, scopes);
    let separator = match realm.contains('?') {
        _ if query.is_empty() => "",
        true => "&",
        false => "?",
    };
    let url = format!("{realm}{separator}{query}");
    http.send(&Request { authorization, ..Request::new(Method::Get, &url) })
}

/// All scopes in one field, and credentials in the body: not redirected.
fn post(
    http: &Http,
    realm: &str,
    grant: &[(&str, &str)],
    service: Option<&str>,
    scopes: &[String],
) -> Result<http::Response, ImageError> {
    let all: Vec<String> = if scopes.is_empty() { Vec::new() } else { vec![scopes.join(" ")] };
    let fields = [grant, &[("client_id", "evenkeel")]].concat();
    let body = form(&fields, service, &all);
    let payload = Payload { bytes: body.as_bytes(), kind: "application/x-www-form-urlencoded", range: None };
    http.send_once(&Request { payload: Some(payload), ..Request::new(Method::Post, realm) })
}

fn form(fields: &[(&str, &str)], service: Option<&str>, scopes: &[String]) -> String {
    let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
    let service = service.map(|service| ("service", service));
    let all = fields.iter().copied().chain(scopes).chain(service);
    all.map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// Percent-encoding for a query (RFC 3986, 2.3: unreserved characters stay).
pub fn encode(text: &str) -> String {
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

    #[test]
    fn secrets_go_nowhere_in_the_clear() {
        for (realm, base, fit) in [
            ("https://auth.example/token", "https://registry.example", true),
            ("https://auth.example/token", "http://10.0.0.5:5000", true),
            ("http://127.0.0.1:5001/token", "http://localhost:5000", true),
            ("http://10.0.0.5:5001/token", "http://10.0.0.5:5000", true),
            ("http://auth.example/token", "https://registry.example", false),
            ("http://registry.example/token", "https://registry.example", false),
            ("http://10.0.0.6/token", "http://10.0.0.5:5000", false),
            ("http://127.0.0.1/token", "http://10.0.0.5:5000", false),
            ("ftp://10.0.0.5/", "http://10.0.0.5:5000", false),
            ("", "https://registry.example", false),
        ] {
            assert_eq!(is_fit_for_secrets(realm, base), fit, "{realm} for {base}");
        }
    }
}
