//! What the parts of a host file mean together.

use std::path::PathBuf;

use super::shape::{Gc, HostFile, Registry};
use crate::manifest::FileKind;
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::Reading;
use crate::model::host_config::{ClientCertificate, GcConfig, HostConfig, Mirror, RegistryConfig, RegistryName};

/// Whatever is wrong is reported, and then what is returned means nothing.
pub(super) fn resolve(written: &HostFile, reading: &mut Reading<'_>) -> HostConfig {
    let HostFile { registries, gc, unread: _ } = written;
    let mut config = HostConfig::default();
    for (name, written) in registries.iter().flat_map(|registries| registries.whole()) {
        if config.registries.insert(name.value.clone(), registry(name, written, reading)).is_some() {
            reading.report(Problem::at(&name.place, format!("`{}` is here twice, under two names", name.value)));
        }
    }
    for (name, written) in registries.iter().flat_map(|registries| registries.whole()) {
        for mirror in written.mirrors.iter().flat_map(|mirrors| &mirrors.value) {
            if config.registries.get(&mirror.registry).is_some_and(|mirror| mirror.blocked) {
                let problem = Problem::at(&mirror.place, format!("the mirror `{}` is blocked", mirror.value));
                reading.report(problem.help(format!("take it out, of `{}` or of what is blocked", name.value)));
            }
        }
    }
    if let Some(gc) = gc {
        config.gc = collection(gc, reading);
    }
    config
}

fn registry(name: &Placed<RegistryName>, written: &Registry, reading: &mut Reading<'_>) -> RegistryConfig {
    let Registry { mirrors, ca, client_certificate, client_key, plain_http, blocked, unread } = written;
    let mut config = RegistryConfig {
        plain_http: plain_http.as_ref().map(|plain| plain.value),
        blocked: blocked.as_ref().is_some_and(|blocked| blocked.value),
        ..RegistryConfig::default()
    };
    for mirror in mirrors.iter().flat_map(|mirrors| &mirrors.value) {
        add_mirror(name, mirror, &mut config.mirrors, reading);
    }
    config.ca = ca.as_ref().and_then(|path| existing(path, "certificate", reading));
    config.client = match (client_certificate, client_key) {
        (Some(certificate), Some(key)) => {
            let both = (existing(certificate, "certificate", reading), existing(key, "key", reading));
            both.0.zip(both.1).map(|(certificate, key)| ClientCertificate { certificate, key })
        }
        (Some(one), None) if !unread.contains(&"client_key") => lonely(one, "client_key", reading),
        (None, Some(one)) if !unread.contains(&"client_certificate") => lonely(one, "client_certificate", reading),
        _ => None,
    };
    let secure = [("ca", ca), ("client_certificate", client_certificate), ("client_key", client_key)];
    if let (Some(plain), Some((key, other))) = (
        plain_http.as_ref().filter(|plain| plain.value),
        secure.iter().find_map(|(key, text)| Some((key, text.as_ref()?))),
    ) {
        let problem = Problem::at(&plain.place, format!("`{}` is reached without TLS", name.value));
        reading.report(problem.label(format!("`{key}` means nothing then")).related(&other.place, "given here"));
    }
    config
}

fn add_mirror(of: &Placed<RegistryName>, mirror: &Placed<Mirror>, known: &mut Vec<Mirror>, reading: &mut Reading<'_>) {
    if mirror.registry == of.value && mirror.path.is_empty() {
        let problem = Problem::at(&mirror.place, format!("`{}` cannot be its own mirror", of.value));
        reading.report(problem.help("it is asked after its mirrors anyway"));
    } else if known.contains(&mirror.value) {
        reading.report(Problem::at(&mirror.place, format!("the mirror `{}` is here twice", mirror.value)));
    } else {
        known.push(mirror.value.clone());
    }
}

/// Half of a client's certificate.
fn lonely(given: &Placed<String>, missing: &str, reading: &mut Reading<'_>) -> Option<ClientCertificate> {
    reading.report(Problem::at(&given.place, format!("`{missing}` is missing")).label("one needs the other"));
    None
}

fn existing(path: &Placed<String>, noun: &str, reading: &mut Reading<'_>) -> Option<PathBuf> {
    let absolute = reading.absolute(&path.place, &path.value);
    let problem = match reading.file_kind(&absolute) {
        Some(FileKind::File) => return Some(absolute),
        Some(_) => format!("the {noun} `{}` is not a file", absolute.display()),
        None => format!("the {noun} `{}` does not exist", absolute.display()),
    };
    reading.report(Problem::at(&path.place, problem));
    None
}

fn collection(written: &Gc, reading: &mut Reading<'_>) -> GcConfig {
    let Gc { high, low, min_age, unread: _ } = written;
    let mut config = GcConfig::default();
    // Both are within 100, so they fit.
    let percent = |number: i64| u8::try_from(number).unwrap_or(u8::MAX);
    if let Some(high) = high {
        config.high = percent(high.0);
        config.low = config.low.min(config.high.saturating_sub(10));
    }
    if let Some(low) = low {
        config.low = percent(low.0);
        if config.low >= config.high {
            let problem = Problem::at(&low.place, format!("`low` is {}, and `high` is {}", config.low, config.high));
            reading.report(problem.label("expected less than `high`"));
        }
    }
    if let Some(age) = min_age {
        config.min_age = age.value;
    }
    config
}
