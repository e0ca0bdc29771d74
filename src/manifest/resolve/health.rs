//! Health checks.

use crate::model::health::{Healthcheck, Probe};

use super::container::check_above_zero;
use super::value_of;
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::Reading;
use crate::manifest::shape::container::{HealthcheckTable, HttpProbe};
use crate::manifest::shape::form;

/// The check, or `None` after a problem.
pub(super) fn healthcheck(written: &Placed<form::Healthcheck>, reading: &mut Reading<'_>) -> Option<Healthcheck> {
    let table = match &written.value {
        form::Healthcheck::None => return Some(Healthcheck::of(Probe::None)),
        form::Healthcheck::Table(table) => table,
    };
    check_above_zero(&table.interval, "an interval", reading);
    check_above_zero(&table.timeout, "a timeout", reading);
    check_above_zero(&table.start_interval, "an interval", reading);
    let defaults = Healthcheck::of(probe(written, table, reading)?);
    Some(Healthcheck {
        interval: value_of(&table.interval).unwrap_or(defaults.interval),
        timeout: value_of(&table.timeout).unwrap_or(defaults.timeout),
        retries: table.retries.as_ref().map_or(defaults.retries, |number| number.0 as u32),
        start_period: value_of(&table.start_period).unwrap_or(defaults.start_period),
        start_interval: value_of(&table.start_interval).unwrap_or(defaults.start_interval),
        probe: defaults.probe,
    })
}

fn probe(written: &Placed<form::Healthcheck>, table: &HealthcheckTable, reading: &mut Reading<'_>) -> Option<Probe> {
    let places = [
        table.command.as_ref().map(|key| &key.place),
        table.http.as_ref().map(|key| &key.place),
        table.tcp.as_ref().map(|key| &key.place),
    ];
    let given: Vec<_> = places.into_iter().flatten().collect();
    match given.as_slice() {
        [_] => {}
        [] if table.unread.is_empty() => {
            reading.report(
                Problem::at(&written.place, "the health check does not say what is asked")
                    .label("expected `command`, `http` or `tcp`"),
            );
        }
        [] => {}
        [first, second, ..] => {
            reading.report(
                Problem::at(second, "a health check asks one thing")
                    .label("a second one")
                    .related(first, "the first one"),
            );
        }
    }
    if let Some(command) = &table.command {
        return Some(Probe::Command(command.0.clone()));
    }
    if let Some(http) = &table.http {
        return http_probe(http, reading);
    }
    table.tcp.as_ref().map(|port| Probe::Tcp { port: port.0 as u16 })
}

fn http_probe(http: &Placed<HttpProbe>, reading: &mut Reading<'_>) -> Option<Probe> {
    let path = http.path.as_ref();
    let malformed =
        path.filter(|path| !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()));
    if let Some(path) = malformed {
        let problem = Problem::at(&path.place, format!("`{}` is not a path of a request", path.value));
        reading.report(problem.label("expected a path that begins with `/` and has no blanks"));
    }
    let port = http.port.as_ref()?.0 as u16;
    Some(Probe::Http { port, path: path.map_or("/".to_owned(), |path| path.value.clone()) })
}
