//! A registry, as far as pulling needs it (OCI distribution-spec, "Pull").
//!
//! * [`http`]: one request: redirects, pauses and repeats, what a failure means.
//! * [`challenge`], [`credentials`] and [`token`]: how to be let in.
//! * [`blob`]: a layer's bytes, across broken connections.
//!
//! Blocking, one connection a thread: a pull is bound by inflating and by the disk.

mod blob;
mod challenge;
pub mod credentials;
mod http;
mod token;

use std::io::Read;
use std::sync::Mutex;

use challenge::Challenge;
use credentials::Credential;
use http::{Http, Method, Request, Response};
use sha2::{Digest as _, Sha256};

use super::error::ImageError;
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
    name: String,
    repository: String,
    credential: Option<Credential>,
    /// The `Authorization` that the registry last took.
    authorization: Mutex<Option<String>>,
}

/// A document and the digest by which it can be asked for again.
pub struct Fetched {
    pub bytes: Vec<u8>,
    pub digest: Digest,
}

impl Registry {
    /// The repository of `reference`. Asks nobody yet.
    pub fn new(reference: &Reference, options: &Options) -> Result<Registry, ImageError> {
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        // As with Docker, a registry on this very host needs no certificate.
        let scheme = if http::is_loopback(host) { "http" } else { "https" };
        Ok(Registry {
            http: Http::new(&reference.registry, scheme),
            base: format!("{scheme}://{host}"),
            name: reference.registry.clone(),
            repository: reference.repository.clone(),
            credential: credentials::find(&options.credentials, &reference.registry, &reference.repository)?,
            authorization: Mutex::new(None),
        })
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
        let mut bytes = Vec::new();
        let read = response.into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| ImageError::Unreachable { registry: self.name.clone(), source })?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge { subject: subject.to_owned(), limit });
        }
        let digest = Digest::from_sha256(&Sha256::digest(&bytes).into());
        Ok(Fetched { bytes, digest })
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.repository)
    }

    /// Sends a request, answering the registry's challenge if it makes one: at the first request, and again when a
    /// token has expired.
    fn send(&self, request: &Request<'_>, subject: &str) -> Result<Response, ImageError> {
        let known = self.authorization.lock().ok().and_then(|known| known.clone());
        let mut response = self.http.send(&Request { authorization: known.as_deref(), ..*request })?;
        // Where the registry has sent us nobody is owed credentials, whatever he asks for.
        if response.status() == 401 && !response.is_elsewhere {
            let fresh = self.answer(&response)?;
            response = self.http.send(&Request { authorization: Some(&fresh), ..*request })?;
            if response.is_success()
                && let Ok(mut known) = self.authorization.lock()
            {
                *known = Some(fresh);
            }
        }
        match response.status() {
            200..=299 => Ok(response),
            401 | 403 => Err(self.unauthorized(response.into_detail())),
            404 => Err(ImageError::NotFound { subject: subject.to_owned(), registry: self.name.clone() }),
            status => Err(ImageError::Refused { url: request.url.to_owned(), status, detail: response.into_detail() }),
        }
    }

    /// The `Authorization` that answers a 401.
    fn answer(&self, response: &Response) -> Result<String, ImageError> {
        let challenges: Vec<Challenge> = response.headers("www-authenticate").flat_map(challenge::parse).collect();
        let find = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        match (find("bearer"), find("basic"), &self.credential) {
            (Some(challenge), _, credential) => {
                let realm = token::Realm { challenge, is_local: self.base.starts_with("http://") };
                token::fetch(&self.http, realm, &self.repository, credential.as_ref()).map_err(|error| match error {
                    token::TokenError::Refused(detail) => self.unauthorized(detail),
                    token::TokenError::Other(error) => error,
                })
            }
            (None, Some(_), Some(Credential::Basic { user, password })) => Ok(credentials::basic(user, password)),
            _ => Err(self.unauthorized(match self.credential {
                None => "it asks for credentials".to_owned(),
                Some(_) => "it takes no credentials of the kind that we have".to_owned(),
            })),
        }
    }

    fn unauthorized(&self, detail: String) -> ImageError {
        ImageError::Unauthorized { registry: self.name.clone(), repository: self.repository.clone(), detail }
    }
}
