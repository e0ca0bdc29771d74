//! Whether credentials are good, asked of the registry before anybody keeps them (OCI distribution-spec, "end-1").

use super::Registry;
use super::credentials::Credential;
use super::http::{Method, Request};
use super::scope::Scopes;
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Options;
use crate::model::host_config::RegistryName;

/// Fails unless the registry lets these in whom it does not let in without.
pub fn check(registry: &RegistryName, user: &str, password: &str, options: &Options) -> Result<(), ImageError> {
    let refused = |detail: String| ImageError::Login { registry: registry.to_string(), detail };
    let credential = Credential::Basic { user: user.to_owned(), password: password.to_owned() };
    let name = registry.as_str();
    let repository = Registry::with_credential(name, "", Scopes::default(), Some(credential), options)?;
    let url = format!("{}/v2/", repository.base);
    // Asked without first, since where everybody is let in nothing can be told.
    let open = repository.http.send(&Request::new(Method::Get, &url))?;
    if open.status() != 401 {
        return Err(match open.status() {
            200..=299 => refused("it asks nobody for credentials, so these cannot be checked".to_owned()),
            404 => refused("there is no registry at that address".to_owned()),
            status => ImageError::Refused { url, status, detail: open.into_detail() },
        });
    }
    match repository.send(&Request::new(Method::Get, &url), name) {
        Ok(_) => Ok(()),
        Err(ImageError::Unauthorized { detail, .. }) => Err(refused(detail)),
        Err(error) => Err(error),
    }
}
