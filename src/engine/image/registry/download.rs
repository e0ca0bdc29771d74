//! A file of another host, by its URL.

use std::io::{self, Read, Write};
use std::time::SystemTime;

use super::date;
use super::http::{Http, Method, Request, authority, bare};
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Options;

/// Writes what is behind `url` to `to`, at most `limit` bytes of it. When it was last modified, where that is said.
/// It does not verify a digest: whoever writes does.
pub fn download(
    url: &str,
    options: &Options,
    limit: u64,
    to: &mut dyn Write,
) -> Result<Option<SystemTime>, ImageError> {
    let host = authority(url).unwrap_or_default();
    let http = Http::new(host, url, &options.registries.of(host))?;
    let failed = |why: String| ImageError::Build { problem: format!("cannot fetch `{}`: {why}", bare(url)) };
    let response = http.send(&Request::new(Method::Get, url)).map_err(|error| match error {
        ImageError::Unreachable { source, .. } => failed(source.to_string()),
        error => error,
    })?;
    if !response.is_success() {
        return Err(failed(format!("the server answered {}", response.status())));
    }
    let modified = response.header("last-modified").and_then(date::parse);
    let size = io::copy(&mut response.into_reader().take(limit.saturating_add(1)), to);
    match size.map_err(|error| failed(error.to_string()))? > limit {
        true => Err(ImageError::TooLarge { subject: bare(url).to_owned(), limit }),
        false => Ok(modified),
    }
}
