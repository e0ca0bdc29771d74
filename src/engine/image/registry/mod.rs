//! A registry (OCI distribution-spec).
//!
//! * `http`: one request: redirects, pauses and repeats, what a failure means. `tls`: whom to trust.
//! * `challenge`, [`credentials`], `scope` and `token`: how to be let in. `rate`: how often.
//! * [`login`]: whether credentials are good. `tags`: what a repository has. [`sources`]: a registry and its mirrors, one after the other.
//! * `blob`: a layer's bytes, across broken connections. `pace`: how fast they come. [`upload`]: the other way.
//! * [`download`]: a file of any other host.
//!
//! Blocking, one connection a thread: a pull is bound by inflating and by the disk.

mod blob;
pub(super) mod challenge;
pub mod credentials;
mod date;
pub mod download;
mod http;
pub mod login;
mod pace;
mod rate;
mod scope;
pub mod sources;
mod tags;
mod tls;
mod token;
pub mod upload;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use challenge::Challenge;
use credentials::Credential;
pub use http::bare;
use http::{Http, Method, Request, Response, Stream};
use scope::Scopes;
use sha2::{Digest as _, Sha256};
pub use token::Tokens;

use super::error::{ImageError, Peer};
use super::layer::check_digest;
use super::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::options::Options;
use crate::model::id::Digest;
use crate::model::reference::Reference;

/// The specification asks registries to take manifests of 4 MiB, and clients not to count on more.
const MANIFEST_MAX: u64 = 4 << 20;
const CONFIG_MAX: u64 = 8 << 20;

/// One repository of a registry.
pub struct Registry {
    http: Http,
    /// `https://registry.example.org`.
    base: String,
    /// As references name it, also in errors.
    pub name: String,
    repository: String,
    credential: Option<Credential>,
    /// The file that led to the credential.
    told_by: Option<PathBuf>,
    tokens: Arc<Tokens>,
    scopes: Scopes,
    /// What it is opened for, for errors: `read` or `write`.
    verb: &'static str,
    /// How the registry lets us in: as it said the first time that it did not.
    entrance: Mutex<Option<Entrance>>,
    /// Whether it was said how few pulls are left: once is enough.
    is_limit_told: AtomicBool,
}

#[derive(Clone)]
enum Entrance {
    Basic(String),
    Bearer(Challenge),
}

/// A document and the digest by which it can be asked for again.
pub struct Fetched {
    pub bytes: Vec<u8>,
    pub digest: Digest,
}

impl Registry {
    /// A repository of the registry that references call `name`, for what `scopes` say. Asks nobody yet.
    fn open(name: &str, repository: &str, scopes: Scopes, options: &Options) -> Result<Registry, ImageError> {
        let found = credentials::find(&options.credentials, name, repository)?;
        let (credential, told_by) = found.unzip();
        Ok(Registry { told_by, ..Registry::with_credential(name, repository, scopes, credential, options)? })
    }

    /// The repository of `destination`, to write to it.
    pub fn to_push(destination: &Reference, options: &Options) -> Result<Registry, ImageError> {
        Registry::to_write(destination, Scopes::push(&destination.repository), options)
    }

    /// The same, to take blobs from the repository `from`.
    pub fn to_mount(destination: &Reference, from: &str, options: &Options) -> Result<Registry, ImageError> {
        let scopes = Scopes::push(&destination.repository).with(&format!("repository:{from}:pull"));
        Registry::to_write(destination, scopes, options)
    }

    fn to_write(destination: &Reference, scopes: Scopes, options: &Options) -> Result<Registry, ImageError> {
        let opened = Registry::open(&destination.registry, &destination.repository, scopes, options)?;
        Ok(Registry { verb: "write", ..opened })
    }

    fn with_credential(
        name: &str,
        repository: &str,
        scopes: Scopes,
        credential: Option<Credential>,
        options: &Options,
    ) -> Result<Registry, ImageError> {
        let config = options.registries.of(name);
        if config.blocked {
            return Err(ImageError::Blocked { registry: name.to_owned() });
        }
        let host = match name {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        // As with Docker, a registry on this very host needs no certificate.
        let is_local = http::is_loopback(host) && config.ca.is_none() && config.client.is_none();
        let scheme = if config.plain_http.unwrap_or(is_local) { "http" } else { "https" };
        let base = format!("{scheme}://{host}");
        Ok(Registry {
            http: Http::new(name, &base, &config)?,
            base,
            name: name.to_owned(),
            repository: repository.to_owned(),
            credential,
            told_by: None,
            tokens: options.tokens.clone(),
            scopes,
            verb: "read",
            entrance: Mutex::new(None),
            is_limit_told: AtomicBool::new(false),
        })
    }

    /// The same, with others behind it that have the same: not worth much patience.
    fn with_others_behind(self) -> Registry {
        Registry { http: self.http.with_others_behind(), ..self }
    }

    /// The digest of what `version`, a tag or a digest, stands for now.
    pub fn manifest_digest(&self, version: &str) -> Result<Digest, ImageError> {
        let response = self.manifest_request(Method::Head, version)?;
        match response.header("docker-content-digest").and_then(|digest| digest.parse().ok()) {
            Some(digest) => Ok(digest),
            None => Ok(self.manifest(version)?.digest),
        }
    }

    /// The index or manifest that `version`, a tag or a digest, stands for now.
    pub fn manifest(&self, version: &str) -> Result<Fetched, ImageError> {
        let response = self.manifest_request(Method::Get, version)?;
        let subject = self.named(version);
        let announced = response.header("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        let fetched = self.read_document(response, &subject, MANIFEST_MAX)?;
        for expected in version.parse().ok().into_iter().chain(announced) {
            check_digest(&subject, &expected, fetched.digest.clone())?;
        }
        Ok(fetched)
    }

    /// A configuration, verified.
    pub fn config(&self, digest: &Digest) -> Result<Fetched, ImageError> {
        let url = self.blob_url(digest);
        let response = self.send(&Request::new(Method::Get, &url), digest.as_str())?;
        let fetched = self.read_document(response, digest.as_str(), CONFIG_MAX)?;
        check_digest("the configuration", digest, fetched.digest.clone())?;
        Ok(fetched)
    }

    /// As a reference without the registry: a tag follows a colon, a digest an at-sign.
    fn named(&self, version: &str) -> String {
        let separator = if version.parse::<Digest>().is_ok() { '@' } else { ':' };
        format!("{}{separator}{version}", self.repository)
    }

    fn manifest_request(&self, method: Method, version: &str) -> Result<Response, ImageError> {
        let url = format!("{}/v2/{}/manifests/{version}", self.base, self.repository);
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let request = Request { accept: Some(&accept), ..Request::new(method, &url) };
        self.send(&request, &self.named(version))
    }

    fn read_document(&self, response: Response, subject: &str, limit: u64) -> Result<Fetched, ImageError> {
        let unreachable = |source| ImageError::Unreachable { peer: Peer::registry(&self.name), source };
        let bytes = response.into_bytes(limit + 1).map_err(unreachable)?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge { subject: subject.to_owned(), limit });
        }
        let digest = Digest::from_sha256(&Sha256::digest(&bytes).into());
        Ok(Fetched { bytes, digest })
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.repository)
    }

    /// Sends a request, repeating it as [`Http::send`] does.
    fn send(&self, request: &Request<'_>, subject: &str) -> Result<Response, ImageError> {
        let response = self.admitted(request, |request| self.http.send(request))?;
        self.judge(response, request, subject)
    }

    /// Sends a request once.
    fn send_once(&self, request: &Request<'_>, subject: &str) -> Result<Response, ImageError> {
        let response = self.admitted(request, |request| self.http.send_once(request))?;
        self.judge(response, request, subject)
    }

    /// Sends what cannot be sent twice, with what the registry took last.
    fn send_stream(&self, method: Method, url: &str, stream: Stream<'_>) -> Result<Response, ImageError> {
        let known = self.entrance.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = match known {
            Some(entrance) if self.http.is_home(url) => Some(self.authorization(&entrance, None)?),
            _ => None,
        };
        self.http.send_stream(method, url, known.as_deref(), stream)
    }

    /// Sends, answering the registry's challenge if it makes one: at the first request, and again when it takes a token
    /// no longer.
    fn admitted(
        &self,
        request: &Request<'_>,
        send: impl Fn(&Request<'_>) -> Result<Response, ImageError>,
    ) -> Result<Response, ImageError> {
        if !self.http.is_home(request.url) {
            // A place for an upload that is somewhere else is owed nothing either.
            return send(request);
        }
        let known = self.entrance.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.map(|entrance| self.authorization(&entrance, None)).transpose()?;
        let response = send(&Request { authorization: known.as_deref(), ..*request })?;
        // Where the registry has sent us nobody is owed credentials, whatever he asks for.
        if response.status() != 401 || response.elsewhere.is_some() {
            return Ok(response);
        }
        let entrance = self.entrance(&response)?;
        let fresh = self.authorization(&entrance, known.as_deref())?;
        if Some(&fresh) == known.as_ref() {
            return Ok(response);
        }
        let mut response = send(&Request { authorization: Some(&fresh), ..*request })?;
        if response.status() == 401 && response.elsewhere.is_none() && matches!(entrance, Entrance::Bearer(_)) {
            // One that was kept from earlier, and is refused before its time.
            let newer = self.authorization(&entrance, Some(&fresh))?;
            response = send(&Request { authorization: Some(&newer), ..*request })?;
        }
        if response.status() != 401 {
            *self.entrance.lock().unwrap_or_else(PoisonError::into_inner) = Some(entrance);
        }
        Ok(response)
    }

    fn judge(&self, response: Response, request: &Request<'_>, subject: &str) -> Result<Response, ImageError> {
        if rate::is_near(&response) && !self.is_limit_told.swap(true, Ordering::Relaxed) {
            rate::warn(&self.name, &response);
        }
        match response.status() {
            200..=299 => Ok(response),
            // The storage to which we were sent says no, and not the registry: no login changes that.
            status @ (401 | 403) if response.elsewhere.is_none() => {
                Err(self.unauthorized(status, response.into_detail()))
            }
            404 => Err(ImageError::NotFound { subject: subject.to_owned(), registry: self.name.clone() }),
            429 => Err(ImageError::TooMany {
                registry: self.name.clone(),
                detail: self.without_secrets(rate::refused(response)),
            }),
            status => {
                let url = response.elsewhere.clone().unwrap_or_else(|| http::bare(request.url).to_owned());
                Err(ImageError::Refused { url, status, detail: self.without_secrets(response.into_detail()) })
            }
        }
    }

    /// How a 401 says that we can get in.
    fn entrance(&self, response: &Response) -> Result<Entrance, ImageError> {
        let all: Vec<Challenge> = response.headers("www-authenticate").flat_map(challenge::parse).collect();
        let find = |scheme: &str| all.iter().find(|challenge| challenge.scheme == scheme);
        match (find("bearer"), find("basic"), &self.credential) {
            (Some(challenge), _, _) => Ok(Entrance::Bearer(challenge.clone())),
            (None, Some(_), Some(Credential::Basic { user, password })) => {
                Ok(Entrance::Basic(credentials::basic(user, password)))
            }
            _ => Err(self.unauthorized(
                401,
                match self.credential {
                    None => "it asks for credentials".to_owned(),
                    Some(_) => "it takes no credentials of the kind that we have".to_owned(),
                },
            )),
        }
    }

    /// The `Authorization` to enter with, another than the one that was refused if there can be another.
    fn authorization(&self, entrance: &Entrance, refused: Option<&str>) -> Result<String, ImageError> {
        let challenge = match entrance {
            Entrance::Basic(authorization) => return Ok(authorization.clone()),
            Entrance::Bearer(challenge) => challenge,
        };
        let wanted = token::Wanted {
            http: &self.http,
            challenge,
            base: &self.base,
            scopes: &self.scopes,
            credential: self.credential.as_ref(),
        };
        self.tokens.authorization(&wanted, refused).map_err(|error| match error {
            token::TokenError::Refused(detail) => self.unauthorized(403, detail),
            token::TokenError::Other(ImageError::Refused { url, status, detail }) => {
                ImageError::Refused { url, status, detail: self.without_secrets(detail) }
            }
            token::TokenError::Other(error) => error,
        })
    }

    fn unauthorized(&self, status: u16, detail: String) -> ImageError {
        let detail = self.without_secrets(detail);
        let (registry, repository, told_by) = (self.name.clone(), self.repository.clone(), self.told_by.clone());
        ImageError::Unauthorized { registry, repository, verb: self.verb, status, detail, told_by }
    }

    fn without_secrets(&self, text: String) -> String {
        let text = self.tokens.taken_out_of(text);
        match &self.credential {
            Some(credential) => credential.taken_out_of(text),
            None => text,
        }
    }
}
