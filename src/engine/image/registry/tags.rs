//! The tags of a repository (OCI distribution-spec, "Listing Tags").

use serde::Deserialize;

use super::Registry;
use super::http::{Method, Request};
use crate::engine::image::error::ImageError;

const PAGE_MAX: u64 = 4 << 20;
/// A registry that goes on and on would be asked for ever.
const PAGES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// Some say `null` for none.
    tags: Option<Vec<String>>,
}

impl Registry {
    /// All of them, page by page.
    pub(super) fn tags(&self) -> Result<Vec<String>, ImageError> {
        let mut tags = Vec::new();
        let mut next = Some(format!("{}/v2/{}/tags/list", self.base, self.repository));
        for _ in 0..PAGES_MAX {
            let Some(url) = next else { return Ok(tags) };
            let response = self.send(&Request::new(Method::Get, &url), &self.repository)?;
            let link = response.header("link").and_then(next_page).map(str::to_owned);
            next = link.map(|link| self.http.onward(&url, &link)).transpose()?.flatten();
            let page = self.read_document(response, &self.repository, PAGE_MAX)?;
            let page: Page = serde_json::from_slice(&page.bytes).map_err(|_| self.no_list("it is no list of tags"))?;
            tags.extend(page.tags.unwrap_or_default());
        }
        Err(self.no_list("it has no end"))
    }

    fn no_list(&self, problem: &str) -> ImageError {
        let subject = format!("the list of tags of {}/{}", self.name, self.repository);
        ImageError::Malformed { subject, problem: problem.to_owned() }
    }
}

/// The target of `<TARGET>; rel="next"` (RFC 8288, 3).
fn next_page(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let mut parameters = parameters.split(';').map(|parameter| parameter.trim().replace('"', ""));
    parameters.any(|parameter| parameter.eq_ignore_ascii_case("rel=next")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_where_the_header_says() {
        for (link, expected) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("<https://a.example/x>;rel=next", Some("https://a.example/x")),
            (r#"</x>; title="a"; rel="next""#, Some("/x")),
            (r#"</x>; rel="prev""#, None),
            ("/x; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_page(link), expected, "{link}");
        }
    }
}
