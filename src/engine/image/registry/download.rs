//! A file of another host, by its URL.
//!
//! # Decisions
//! * What the host file says of a registry says how that host is reached, so it counts here too. Its client certificate
//!   does not: whoever wrote the URL is not who may speak for this host.

use std::io::{self, Read, Write};
use std::time::SystemTime;

use super::date;
use super::http::{Http, Method, Request, authority, bare};
use super::pace::Paced;
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Options;
use crate::model::dockerfile::names_a_user;
use crate::model::host_config::RegistryConfig;

/// Writes what is behind `url` to `to`, at most `limit` bytes of it. When it was last modified, where that is said.
/// It does not verify a digest: whoever writes does.
pub fn download(
    url: &str,
    options: &Options,
    limit: u64,
    to: &mut dyn Write,
) -> Result<Option<SystemTime>, ImageError> {
    let http = way_to(url, options)?;
    let failed = |why: String| ImageError::Build { problem: format!("cannot fetch `{}`: {why}", bare(url)) };
    let response = http.send(&Request::new(Method::Get, url)).map_err(|error| match error {
        ImageError::Unreachable { source, .. } => failed(source.to_string()),
        error => error,
    })?;
    if !response.is_success() {
        return Err(failed(format!("the server answered {}", response.status())));
    }
    let modified = response.header("last-modified").and_then(date::parse);
    let size = io::copy(&mut Paced::begin(response.into_reader()).take(limit.saturating_add(1)), to);
    match size.map_err(|error| failed(error.to_string()))? > limit {
        true => Err(ImageError::TooLarge { subject: bare(url).to_owned(), limit }),
        false => Ok(modified),
    }
}

/// Without what would say who comes.
fn way_to(url: &str, options: &Options) -> Result<Http, ImageError> {
    if names_a_user(url) {
        // A variable may have brought it: the message shows no password.
        let problem = "the URL names a user, and files are fetched without one".to_owned();
        return Err(ImageError::Build { problem });
    }
    let host = authority(url).unwrap_or_default();
    Http::new(host, url, &RegistryConfig { client: None, ..options.registries.of(host) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::host_config::ClientCertificate;

    #[test]
    fn whom_a_url_names_is_shown_no_certificate_and_no_password() {
        let options = Options::new("/evenkeel".into());
        let nowhere = || "/nowhere/client.pem".into();
        let client = Some(ClientCertificate { certificate: nowhere(), key: nowhere() });
        let config = RegistryConfig { client, ..RegistryConfig::default() };
        options.registries.replace(BTreeMap::from([("127.0.0.1:1".parse().unwrap(), config)]));
        assert!(way_to("https://127.0.0.1:1/x", &options).is_ok(), "the certificate is not looked at");
        let named = way_to("https://me:word@127.0.0.1:1/x", &options).err().unwrap().to_string();
        assert!(named.contains("names a user") && !named.contains("word"), "{named}");
    }
}
