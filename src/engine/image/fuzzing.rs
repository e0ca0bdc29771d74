//! Doors for fuzz targets (`fuzz/`, `tests/fuzz.rs`) to what nobody else outside this module calls. Each takes any bytes.

use super::manifest::Document;
use super::options::Platform;
use super::registry::challenge;
pub use super::unpack::fuzzing::extract;
use super::{config, manifest};

/// What a registry or an archive may hold under a digest: an index, a manifest, a configuration. Whether it was read as
/// any of them.
pub fn document(bytes: &[u8]) -> bool {
    let document = manifest::parse("document", bytes);
    let configuration = config::parse("document", bytes);
    let referenced = manifest::referenced(bytes);
    let kind = manifest::media_type(bytes);
    match &document {
        Ok(Document::Index(manifests)) => {
            let wanted = Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
            if let Ok(chosen) = manifest::select("image", manifests, &wanted) {
                assert!(referenced.contains(&chosen.digest), "an index refers to what is chosen from it");
            }
        }
        Ok(Document::Manifest(manifest)) => {
            assert_eq!(referenced, std::slice::from_ref(&manifest.config.digest));
            assert!(kind != manifest::OCI_INDEX && kind != manifest::DOCKER_INDEX, "one document is one thing");
        }
        Err(_) => assert!(referenced.is_empty(), "what cannot be read refers to nothing"),
    }
    document.is_ok() || configuration.is_ok()
}

/// The schemes that a `WWW-Authenticate` header offers.
pub fn schemes(header: &str) -> Vec<String> {
    challenge::parse(header).into_iter().map(|challenge| challenge.scheme).collect()
}
