//! How many pulls a registry still allows, where it says so: Docker Hub's `RateLimit-Limit: 100;w=21600` and
//! `RateLimit-Remaining: 7;w=21600` (docs.docker.com, "Docker Hub usage and limits").

use std::time::Duration;

use super::http::Response;

/// A limit, what is left of it, and for how long it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    limit: u64,
    remaining: u64,
    window: Option<Duration>,
}

fn of(response: &Response) -> Option<Rate> {
    rate(response.header("ratelimit-limit")?, response.header("ratelimit-remaining")?)
}

fn rate(limit: &str, remaining: &str) -> Option<Rate> {
    let number = |text: &str| text.split([';', ',']).next()?.trim().parse::<u64>().ok();
    let window = limit.split(';').find_map(|part| part.trim().strip_prefix("w=")?.parse().ok());
    Some(Rate { limit: number(limit)?, remaining: number(remaining)?, window: window.map(Duration::from_secs) })
}

impl Rate {
    fn is_short(&self) -> bool {
        self.remaining.saturating_mul(10) <= self.limit
    }

    fn text(&self) -> String {
        let window = self.window.map(|window| format!(" in {}", humantime::format_duration(window)));
        format!("{} of {} pulls{} are left", self.remaining, self.limit, window.unwrap_or_default())
    }
}

/// Whether there still is something left, and not much.
pub fn is_near(response: &Response) -> bool {
    response.is_success() && of(response).is_some_and(|rate| rate.is_short())
}

/// A word in the log.
pub fn warn(registry: &str, response: &Response) {
    if let Some(rate) = of(response) {
        tracing::warn!("the registry `{registry}` limits pulls: {}", rate.text());
    }
}

/// What a 429 means that no patience has changed.
pub fn refused(response: Response) -> String {
    let mut facts: Vec<String> = of(&response).iter().map(Rate::text).collect();
    if let Some(pause) = response.retry_after() {
        facts.push(format!("it can be asked again in {}", humantime::format_duration(pause)));
    }
    facts.extend(Some(response.into_detail()).filter(|detail| !detail.is_empty()));
    facts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_when_they_are_near() {
        let near = rate("100;w=21600", "7;w=21600").unwrap();
        assert!(near.is_short());
        assert_eq!(near.text(), "7 of 100 pulls in 6h are left");
        assert!(!rate("100", "76").unwrap().is_short());
        assert_eq!(rate("100", "76").unwrap().text(), "76 of 100 pulls are left");
        assert_eq!(rate("many", "7"), None);
    }
}
