//! Indexes and manifests, OCI's and Docker's, which differ only in their media types.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ImageError;
use super::options::Platform;
use crate::model::id::Digest;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Where a blob is and what it is (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platform: Option<DescribedPlatform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct DescribedPlatform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    pub variant: Option<String>,
}

impl DescribedPlatform {
    pub fn to_platform(&self) -> Platform {
        Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() }
    }
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What a registry or an archive has under a name.
#[derive(Debug, Clone)]
pub enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// Reads an index or a manifest. What it is follows from its fields: a document with those of both is refused, since
/// two readers could take it for two different images (CVE-2021-41190).
pub fn parse(subject: &str, bytes: &[u8]) -> Result<Document, ImageError> {
    let malformed = |problem: String| ImageError::Malformed { subject: subject.to_owned(), problem };
    let fields: Fields = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    match fields {
        Fields { schema_version: Some(1), .. } => {
            Err(malformed("it is in Docker's first format, which has no digests to verify; push it again".to_owned()))
        }
        Fields { manifests: Some(manifests), config: None, layers: None, .. } => Ok(Document::Index(manifests)),
        Fields { manifests: None, config: Some(config), layers, media_type, .. } => {
            if let Some(media_type) = media_type.filter(|kind| kind == OCI_INDEX || kind == DOCKER_INDEX) {
                return Err(malformed(format!("it says `{media_type}` but is a manifest")));
            }
            let layers = layers.unwrap_or_default();
            for layer in &layers {
                check_layer_type(&layer.media_type).map_err(&malformed)?;
            }
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        Fields { manifests: Some(_), .. } => Err(malformed("it is an index and a manifest at once".to_owned())),
        Fields { .. } => Err(malformed("it is neither an index nor a manifest of an image".to_owned())),
    }
}

/// A layer is a tar stream. Its compression is seen from its first bytes, so any suffix is fine here, but a layer that
/// is encrypted, or no tar at all (an artifact), must not be mistaken for one.
fn check_layer_type(media_type: &str) -> Result<(), String> {
    let kind = media_type.split('+').next().unwrap_or_default();
    let suffix = media_type.split_once('+').map(|(_, suffix)| suffix);
    let known = matches!(
        kind,
        "" | "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    );
    match known && matches!(suffix, None | Some("gzip" | "zstd")) {
        true => Ok(()),
        false => Err(format!("a layer of the type `{media_type}` cannot be unpacked")),
    }
}

/// The media type that a document says it has, or that its fields imply.
pub fn media_type(bytes: &[u8]) -> String {
    let Ok(fields) = serde_json::from_slice::<Fields>(bytes) else { return OCI_MANIFEST.to_owned() };
    let implied = if fields.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
    fields.media_type.unwrap_or_else(|| implied.to_owned())
}

/// The manifests of an index, or the configuration of a manifest.
pub fn referenced(bytes: &[u8]) -> Vec<Digest> {
    match parse("", bytes) {
        Ok(Document::Index(manifests)) => manifests.into_iter().map(|manifest| manifest.digest).collect(),
        Ok(Document::Manifest(manifest)) => vec![manifest.config.digest],
        // What cannot be read refers to nothing.
        Err(_) => Vec::new(),
    }
}

/// The manifest for `wanted`: the same system and architecture, and the best variant that this host runs. Entries
/// without a platform are taken if nothing else fits and there is but one.
pub fn select<'a>(image: &str, manifests: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, ImageError> {
    let rank = |descriptor: &Descriptor| -> Option<u32> {
        let platform = descriptor.platform.as_ref()?;
        let same = platform.os == wanted.os && platform.architecture == wanted.architecture;
        if same { variant_rank(wanted, platform.variant.as_deref()) } else { None }
    };
    // The first of the best: an index lists by preference.
    let best = manifests.iter().rev().filter_map(|d| rank(d).map(|rank| (rank, d))).max_by_key(|(rank, _)| *rank);
    if let Some((_, descriptor)) = best {
        return Ok(descriptor);
    }
    match manifests {
        [only] if only.platform.is_none() => Ok(only),
        _ => Err(ImageError::WrongPlatform {
            image: image.to_owned(),
            wanted: wanted.to_string(),
            available: offered(manifests),
        }),
    }
}

/// How well a variant suits this host; `None` if it does not. An ARM host of version 7 runs 6 and 5 as well; no variant
/// means the architecture's base, which is `v8` for arm64.
fn variant_rank(wanted: &Platform, variant: Option<&str>) -> Option<u32> {
    let number = |text: &str| text.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
    match (wanted.architecture.as_str(), wanted.variant.as_deref().and_then(number), variant.map(number)) {
        ("arm", Some(host), Some(Some(theirs))) => (theirs <= host).then_some(theirs),
        ("arm", _, None) => Some(5),
        (_, _, None) => Some(8),
        (_, host, Some(theirs)) if host == theirs => Some(9),
        // amd64 `v2` and the like need instructions that this host may lack.
        _ => None,
    }
}

fn offered(manifests: &[Descriptor]) -> Vec<String> {
    let mut names: Vec<String> = manifests
        .iter()
        .filter_map(|descriptor| descriptor.platform.as_ref())
        // Attestations are listed as images for an unknown system.
        .filter(|platform| platform.os != "unknown")
        .map(|platform| format!("`{}`", platform.to_platform()))
        .collect();
    names.dedup();
    if names.is_empty() {
        names.push("no platform at all".to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |(at, text): (usize, &&str)| {
            let mut parts = text.split('/').map(str::to_owned);
            let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
            let platform = Some(DescribedPlatform { os, architecture, variant: parts.next() });
            let digest = DIGEST.parse().unwrap();
            Descriptor { media_type: String::new(), digest, size: at as u64, platform, annotations: None }
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<u64> {
        let mut parts = wanted.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let wanted = Platform { os, architecture, variant: parts.next() };
        select("x", &index(platforms), &wanted).ok().map(|descriptor| descriptor.size)
    }

    #[test]
    fn the_best_variant_for_the_host_is_chosen() {
        assert_eq!(chosen(&["linux/arm64", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["linux/amd64/v3"], "linux/amd64"), None);
        assert_eq!(chosen(&["linux/arm64/v8"], "linux/arm64/v8"), Some(0));
        assert_eq!(chosen(&["linux/arm64"], "linux/arm64/v8"), Some(0));
        assert_eq!(chosen(&["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7"), Some(1));
        assert_eq!(chosen(&["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v6"), Some(2));
        assert_eq!(chosen(&["windows/amd64", "linux/386"], "linux/amd64"), None);
        assert_eq!(chosen(&["linux/amd64", "linux/amd64"], "linux/amd64"), Some(0));
    }

    #[test]
    fn what_there_is_instead_is_said() {
        let wanted = Platform { os: "linux".into(), architecture: "riscv64".into(), variant: None };
        let error = select("web", &index(&["linux/amd64", "linux/arm/v7", "unknown/unknown"]), &wanted).unwrap_err();
        assert_eq!(error.to_string(), "`web` is not made for `linux/riscv64`, only for `linux/amd64`, `linux/arm/v7`");
    }

    #[test]
    fn documents_are_told_apart_by_their_fields() {
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{DIGEST}","size":1}}"#);
        let read = |text: String| parse("it", text.as_bytes()).map_err(|e| e.to_string());
        let is_index = |text| matches!(read(text), Ok(Document::Index(_)));
        assert!(is_index(format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#)));
        assert!(matches!(read(format!(r#"{{"config":{descriptor},"layers":[]}}"#)), Ok(Document::Manifest(_))));
        assert!(read(format!(r#"{{"config":{descriptor},"manifests":[]}}"#)).unwrap_err().contains("at once"));
        assert!(read(r#"{"schemaVersion":1}"#.to_owned()).unwrap_err().contains("first format"));
        assert!(read("{}".to_owned()).unwrap_err().contains("neither"));
        assert!(read("[".to_owned()).unwrap_err().contains("not valid"));
        let helm = descriptor.replace("\"x\"", "\"application/vnd.cncf.helm.chart.content.v1.tar+gzip\"");
        assert!(read(format!(r#"{{"config":{descriptor},"layers":[{helm}]}}"#)).unwrap_err().contains("helm"));
    }

    #[test]
    fn layer_types_of_both_worlds_are_known() {
        for kind in ["", "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"] {
            assert!(check_layer_type(kind).is_ok());
        }
        for kind in ["+gzip", "+zstd"].map(|suffix| format!("application/vnd.oci.image.layer.v1.tar{suffix}")) {
            assert!(check_layer_type(&kind).is_ok());
        }
        assert!(check_layer_type("application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
        assert!(check_layer_type("application/vnd.oci.image.layer.v1.tar+gzip+encrypted").is_err());
    }
}
