//! One HTTP request to a registry: redirects by hand, pauses and repeats.
//!
//! Redirects are followed here because of what they must not carry: credentials go on only to the same scheme, host
//! and port, and nothing that came by TLS leads to where there is none.
//!
//! What is repeated: connections that fail or break, 429, and 5xx that can pass (408, 500, 502, 503, 504), with pauses
//! that double and vary, or as long as `Retry-After` says, in seconds or as a date (RFC 9110, 10.2.3).

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, SendBody};

use super::{date, tls};
use crate::engine::image::error::{ImageError, Peer};
use crate::model::host_config::RegistryConfig;

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A registry that asks for a longer pause is one that has no answer now.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// Whoever looks on is told of a pause of this length.
const WORTH_A_WORD: Duration = Duration::from_secs(2);
const REDIRECTS: usize = 5;
/// Silence of this length is a broken connection.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
/// A document takes no longer on a line that is worth waiting for.
const DOCUMENT_TIME: Duration = Duration::from_secs(120);
const DETAIL_MAX: u64 = 64 << 10;

/// The way to one registry, and to wherever it sends us.
pub struct Http {
    home: Agent,
    /// For everybody else, who is shown no certificate of ours.
    elsewhere: Agent,
    base: String,
    /// What errors call the other side.
    registry: String,
    attempts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Patch,
    Put,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Put => "PUT",
        }
    }
}

#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: Method,
    pub url: &'a str,
    pub accept: Option<&'a str>,
    /// First and last byte.
    pub range: Option<(u64, u64)>,
    pub authorization: Option<&'a str>,
    pub payload: Option<Payload<'a>>,
}

/// What is sent, and as what.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    pub bytes: &'a [u8],
    pub kind: &'a str,
    /// Its first and last byte within a whole that is sent in parts.
    pub range: Option<(u64, u64)>,
}

/// What is sent once, from its beginning.
pub struct Stream<'a> {
    pub length: u64,
    pub kind: &'a str,
    pub reader: &'a mut dyn Read,
}

impl<'a> Request<'a> {
    pub fn new(method: Method, url: &'a str) -> Request<'a> {
        Request { method, url, accept: None, range: None, authorization: None, payload: None }
    }
}

/// An answer whose body is still to be read.
pub struct Response {
    head: ureq::http::response::Parts,
    body: Body,
    /// From where it came, if that is another server than the one that was asked; without what may be a key.
    pub elsewhere: Option<String>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn is_success(&self) -> bool {
        self.head.status.is_success()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.head.headers, name)
    }

    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub fn into_reader(self) -> impl Read + Send + 'static {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// The whole body, or its first `limit` bytes. `TimedOut` when it takes longer than a document may: each read alone
    /// waits for no longer than [`SILENCE`], and a byte now and then would hold us for weeks.
    pub fn into_bytes(self, limit: u64) -> io::Result<Vec<u8>> {
        read_within(self.into_reader().take(limit), DOCUMENT_TIME).map_err(broken)
    }

    /// How long the other side asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        match text.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => Some(date::parse(text)?.duration_since(SystemTime::now()).unwrap_or_default()),
        }
    }

    /// What the registry says went wrong, in a line (OCI distribution-spec, "Error Codes").
    pub fn into_detail(self) -> String {
        // An unreadable explanation explains nothing; the status is known.
        detail(&self.into_bytes(DETAIL_MAX).unwrap_or_default())
    }
}

impl Http {
    /// For the registry of this name at `base`, as the host file says.
    pub fn new(registry: &str, base: &str, config: &RegistryConfig) -> Result<Http, ImageError> {
        Ok(Http {
            home: agent(base, tls::config(config, config.client.as_ref())?),
            elsewhere: agent(base, tls::config(config, None)?),
            base: base.to_owned(),
            registry: registry.to_owned(),
            attempts: ATTEMPTS,
        })
    }

    /// The same way to a registry with others behind it: what breaks is tried once more, since an idle connection may
    /// just have ended, and who cannot be reached is left at once.
    pub fn with_others_behind(self) -> Http {
        Http { attempts: 2, ..self }
    }

    /// Sends until there is an answer that repeating would not change, whatever its status.
    pub fn send(&self, request: &Request<'_>) -> Result<Response, ImageError> {
        let mut pauses = Pauses::of(self.attempts);
        loop {
            let (asked, outcome) = match self.send_once(request) {
                Ok(response) if is_passing(response.status()) => (response.retry_after(), Ok(response)),
                Ok(response) => return Ok(response),
                Err(ImageError::Unreachable { source, peer }) if self.attempts == ATTEMPTS || is_broken(&source) => {
                    (None, Err(ImageError::Unreachable { source, peer }))
                }
                Err(error) => return Err(error),
            };
            let Some(pause) = pauses.next(asked) else { return outcome };
            if asked.is_some() && pause >= WORTH_A_WORD {
                let pause = humantime::format_duration(Duration::from_secs(pause.as_secs()));
                tracing::warn!("the registry `{}` asks for a pause of {pause}", self.registry);
            }
            std::thread::sleep(pause);
        }
    }

    /// Sends once.
    pub fn send_once(&self, request: &Request<'_>) -> Result<Response, ImageError> {
        let mut url = request.url.to_owned();
        let mut authorization = request.authorization;
        let mut is_elsewhere = false;
        for _ in 0..=REDIRECTS {
            let response = self.once(&Request { url: &url, authorization, ..*request });
            let response = response.map_err(|error| self.failure(error, &url))?;
            let leads_on = match response.status() {
                307 | 308 => true,
                // What changes something is not to be sent as something else to somewhere else.
                301..=303 => matches!(request.method, Method::Get | Method::Head),
                _ => false,
            };
            // A form with a secret in it goes where it was meant to go.
            if !leads_on || (request.method == Method::Post && request.payload.is_some()) {
                let elsewhere = is_elsewhere.then(|| bare(&url).to_owned());
                return Ok(Response { elsewhere, ..response });
            }
            let next = self.location(&url, &response)?.ok_or_else(|| self.leads("to no address".to_owned()))?;
            if origin(&url) != origin(&next) {
                authorization = None;
                is_elsewhere = true;
            }
            url = next;
        }
        Err(self.leads(format!("on and on, more than {REDIRECTS} times")))
    }

    /// Sends a body that is read while it is sent. A redirect is not followed.
    pub fn send_stream(
        &self,
        method: Method,
        url: &str,
        authorization: Option<&str>,
        stream: Stream<'_>,
    ) -> Result<Response, ImageError> {
        let mut builder = ureq::http::Request::builder().method(method.name()).uri(url);
        builder = builder.header("content-type", stream.kind).header("content-length", stream.length);
        if let Some(authorization) = authorization {
            builder = builder.header("authorization", authorization);
        }
        let body =
            builder.body(SendBody::from_reader(stream.reader)).map_err(|error| self.failure(error.into(), url))?;
        let (head, body) = self.agent(url).run(body).map_err(|error| self.failure(error, url))?.into_parts();
        Ok(Response { head, body, elsewhere: None })
    }

    /// Whether a URL leads to the registry itself, and not to another server.
    pub fn is_home(&self, url: &str) -> bool {
        origin(url) == origin(&self.base)
    }

    /// Where the answer to a request for `from` says that it goes on; nothing where it does not say so.
    pub fn location(&self, from: &str, response: &Response) -> Result<Option<String>, ImageError> {
        response.header("location").map_or(Ok(None), |location| self.onward(from, location))
    }

    /// Where a link in an answer to a request for `from` leads; nothing where it leads to no address.
    pub fn onward(&self, from: &str, location: &str) -> Result<Option<String>, ImageError> {
        // The message shows no more of the address: the rest may be a key of its own.
        onward(from, location).map_err(|away| self.leads(format!("away from TLS, to `{}`", bare(&away))))
    }

    fn leads(&self, problem: String) -> ImageError {
        ImageError::Redirect { registry: self.registry.clone(), problem }
    }

    fn agent(&self, url: &str) -> &Agent {
        if self.is_home(url) { &self.home } else { &self.elsewhere }
    }

    /// What a failure of the connection for `url` means.
    fn failure(&self, error: ureq::Error, url: &str) -> ImageError {
        let elsewhere = Some(url).filter(|url| !self.is_home(url)).and_then(authority).map(str::to_owned);
        let peer = Peer { registry: self.registry.clone(), elsewhere };
        let source = match error {
            ureq::Error::Rustls(error) => io::Error::other(error),
            error => error.into_io(),
        };
        match tls::insecurity(&source) {
            Some(insecurity) => ImageError::Insecure { peer, insecurity, source },
            None => ImageError::Unreachable { peer, source },
        }
    }

    fn once(&self, request: &Request<'_>) -> Result<Response, ureq::Error> {
        let mut builder = ureq::http::Request::builder().method(request.method.name()).uri(request.url);
        if let Some(accept) = request.accept {
            builder = builder.header("accept", accept);
        }
        if let Some((first, last)) = request.range {
            // With an end: some registries answer 416 to an open range.
            builder = builder.header("range", format!("bytes={first}-{last}"));
        }
        if let Some(authorization) = request.authorization {
            builder = builder.header("authorization", authorization);
        }
        let agent = self.agent(request.url);
        let response = match request.payload {
            None if matches!(request.method, Method::Get | Method::Head) => agent.run(builder.body(())?),
            // Without a length some registries answer 411.
            None => agent.run(builder.body(&[][..])?),
            Some(Payload { bytes, kind, range }) => {
                builder = builder.header("content-type", kind);
                if let Some((first, last)) = range {
                    builder = builder.header("content-range", format!("{first}-{last}"));
                }
                agent.run(builder.body(bytes)?)
            }
        };
        let (head, body) = response?.into_parts();
        Ok(Response { head, body, elsewhere: None })
    }
}

fn agent(base: &str, tls: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .input_buffer_size(256 << 10);
    let config = match base.starts_with("http://") {
        // A proxy is on the way to elsewhere, and what is reached in the clear is near.
        true => config.proxy(None),
        false => config,
    };
    config.tls_config(tls).build().new_agent()
}

/// How long to wait before each repetition.
pub struct Pauses {
    made: u32,
    attempts: u32,
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses::of(ATTEMPTS)
    }
}

impl Pauses {
    /// Those between so many attempts.
    fn of(attempts: u32) -> Pauses {
        Pauses { made: 0, attempts }
    }

    /// The next pause, or none when it is time to give up: also when more patience is asked for than a person has.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.made += 1;
        if self.made >= self.attempts || asked.is_some_and(|asked| asked > LONGEST_ASKED) {
            return None;
        }
        let doubled = FIRST_PAUSE * 2u32.pow(self.made - 1);
        // Several hosts that lost the same registry do not come back to it in step.
        let varied = doubled.mul_f64(0.5 + f64::from(random()) / f64::from(u32::MAX));
        Some(asked.unwrap_or(varied.min(LONGEST_PAUSE)))
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness pauses do not vary, and that is all.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

/// Whether a connection that was there has ended, and not one that did not come about.
fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a host, perhaps with a port, is this one.
pub fn is_loopback(authority: &str) -> bool {
    let host = host(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host of host and port.
pub fn host(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// A URL without its query, which may hold what proves who comes.
pub fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// Host and port of a URL.
pub fn authority(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', '?', '#']).next()
}

fn origin(url: &str) -> Option<(&str, &str)> {
    Some((url.split_once("://")?.0, authority(url)?))
}

/// Where a `Location` leads from `base` (RFC 9110, 10.2.2): a whole URL, or a path on the same host.
fn resolve(base: &str, location: &str) -> Option<String> {
    let (scheme, authority) = origin(base)?;
    let url = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let parsed: Uri = url.parse().ok()?;
    matches!(parsed.scheme_str(), Some("http" | "https")).then_some(url)
}

/// Where a `Location` leads from `base`, and what was said over TLS goes on over TLS. A registry behind a proxy that ends
/// TLS may not know of it: `http` at the same place means `https`. At another it is an error, with that place.
fn onward(base: &str, location: &str) -> Result<Option<String>, String> {
    let is_secure = |url: &str| url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    match resolve(base, location) {
        Some(next) if is_secure(base) && !is_secure(&next) => match next.split_once("://") {
            Some((_, rest)) if authority(&next) == authority(base) => Ok(Some(format!("https://{rest}"))),
            _ => Err(next),
        },
        next => Ok(next),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The first message of an error document, or its first line.
fn detail(bytes: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let found = document.as_ref().and_then(|document| {
        let error = document.get("errors").and_then(|errors| errors.get(0));
        let places = [error.and_then(|error| error.get("message")), document.get("details"), document.get("message")];
        places.into_iter().flatten().find_map(|place| place.as_str()).map(str::to_owned)
    });
    let line = || String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
    let mut detail = found.unwrap_or_else(line);
    detail.retain(|c| !c.is_control());
    if detail.starts_with('<') {
        // A page for browsers; its title may say more than the status does.
        detail = title(bytes).unwrap_or_default();
    }
    detail.chars().take(200).collect()
}

/// The title of a page, in a line.
fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(page);
    // ASCII letters alone change, so that places stay the same.
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title>")? + "<title>".len();
    let end = start + lower[start..].find("</title>")?;
    Some(page[start..end].split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Reads to the end, and no longer than `time`.
fn read_within(mut reader: impl Read, time: Duration) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "its answer does not come to an end"))
}

/// Reads as the transport fails: with what `ureq` hides in its own error taken out.
pub fn broken(error: io::Error) -> io::Error {
    ureq::Error::from(error).into_io()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "128.0.0.1", "[::2]:1", "10.0.0.1:5000", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base = "https://a.example:8443/v2/x?y";
        for (location, expected) in [
            ("/b", Some("https://a.example:8443/b")),
            ("https://c.example/d?e=f", Some("https://c.example/d?e=f")),
            ("//c.example/d", Some("https://c.example/d")),
            ("http://c.example/", Some("http://c.example/")),
            ("ftp://c.example/", None),
            ("d", None),
        ] {
            assert_eq!(resolve(base, location).as_deref(), expected, "{location}");
        }
        assert_ne!(origin(base), origin("https://a.example/v2"), "another port is another server");
        assert_ne!(origin(base), origin("http://a.example:8443/"));
    }

    #[test]
    fn an_upload_over_tls_goes_on_over_tls() {
        let base = "https://a.example/v2/x/blobs/uploads/";
        for (location, expected) in [
            ("/u", Ok("https://a.example/u")),
            ("https://c.example/u?k=v", Ok("https://c.example/u?k=v")),
            ("http://a.example/u?k=http://v", Ok("https://a.example/u?k=http://v")),
            ("HTTP://a.example/u", Ok("https://a.example/u")),
            ("http://c.example/u", Err("http://c.example/u")),
            ("HTTP://c.example/u", Err("HTTP://c.example/u")),
            ("http://a.example:5000/u", Err("http://a.example:5000/u")),
        ] {
            let found = onward(base, location);
            let expected = expected.map(|url| Some(url.to_owned())).map_err(str::to_owned);
            assert_eq!(found, expected, "{location}");
        }
        let clear = onward("http://localhost:5000/v2/", "http://localhost:5000/u");
        assert_eq!(clear, Ok(Some("http://localhost:5000/u".to_owned())));
    }

    #[test]
    fn a_document_that_does_not_end_is_not_waited_for() {
        /// Gives a byte whenever it is asked.
        struct Drip;
        impl Read for Drip {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer[0] = b' ';
                Ok(1)
            }
        }
        let error = read_within(Drip, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(read_within(Drip.take(3), Duration::from_secs(60)).unwrap(), b"   ");
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut pauses = Pauses::default();
        let all: Vec<Duration> = std::iter::from_fn(|| pauses.next(None)).collect();
        assert_eq!(all.len(), 4);
        for (at, pause) in all.iter().enumerate() {
            let base = FIRST_PAUSE * 2u32.pow(at as u32);
            assert!(*pause >= base / 2 && *pause <= base * 3 / 2, "{pause:?}");
        }
        assert_eq!(Pauses::default().next(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(Pauses::default().next(Some(Duration::from_secs(3600))), None);
    }

    #[test]
    fn explanations_are_one_line() {
        let document = br#"{"errors":[{"code":"DENIED","message":"no\nway","detail":null}]}"#;
        assert_eq!(detail(document), "noway");
        assert_eq!(detail(br#"{"details":"incorrect password"}"#), "incorrect password");
        assert_eq!(detail(b"plain\nmore"), "plain");
        assert_eq!(detail(b"<html>"), "");
        let page = b"<html>\r\n<head><TITLE>400 No required\r\nSSL certificate was sent</title></head>";
        assert_eq!(detail(page), "400 No required SSL certificate was sent");
        assert_eq!(detail(b""), "");
    }
}
