//! Images made by hand: layers, configuration, manifest, index; as an OCI layout or as answers of a registry.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::model::id::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

/// A document or a layer with the type it is listed under.
#[derive(Clone)]
pub struct Blob {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
}

impl Blob {
    pub fn digest(&self) -> Digest {
        digest(&self.bytes)
    }

    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest(), "size": self.bytes.len() })
    }
}

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layer: the blob as it is transferred, and the tar stream in it.
#[derive(Clone)]
pub struct Layer {
    pub blob: Blob,
    pub tar: Vec<u8>,
}

pub fn layer(kind: &'static str, tar: Vec<u8>) -> Layer {
    let bytes = match kind {
        LAYER_GZIP | DOCKER_LAYER => crate::support::gzip(&tar),
        LAYER_ZSTD => crate::support::zstd(&tar),
        _ => tar.clone(),
    };
    Layer { blob: Blob { kind, bytes }, tar }
}

/// One image with everything that it refers to.
#[derive(Clone)]
pub struct Made {
    pub layers: Vec<Layer>,
    pub config: Blob,
    pub manifest: Blob,
}

pub fn image(manifest_kind: &'static str, architecture: &str, layers: &[Layer]) -> Made {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest(&layer.tar)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Cmd": ["/bin/serve"], "Env": ["PATH=/bin"], "Labels": { "of": architecture } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let docker = manifest_kind == DOCKER_MANIFEST;
    let kind = if docker {
        "application/vnd.docker.container.image.v1+json"
    } else {
        "application/vnd.oci.image.config.v1+json"
    };
    let config = Blob { kind, bytes: config.to_string().into_bytes() };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_kind, "config": config.descriptor(),
        "layers": layers.iter().map(|layer| layer.blob.descriptor()).collect::<Vec<_>>(),
    });
    Made {
        layers: layers.to_vec(),
        config,
        manifest: Blob { kind: manifest_kind, bytes: manifest.to_string().into_bytes() },
    }
}

pub fn index(images: &[(&Made, &str)]) -> Blob {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(made, architecture)| {
            let mut descriptor = made.manifest.descriptor();
            descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
            descriptor
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    Blob { kind: INDEX, bytes: index.to_string().into_bytes() }
}

impl Made {
    pub fn blobs(&self) -> Vec<&Blob> {
        self.layers.iter().map(|layer| &layer.blob).chain([&self.config, &self.manifest]).collect()
    }
}

/// Writes an OCI layout in which `top` has the tag `latest`.
pub fn layout(directory: &Path, top: &Blob, blobs: &[&Blob]) -> PathBuf {
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    for blob in blobs.iter().copied().chain([top]) {
        fs::write(directory.join("blobs/sha256").join(blob.digest().hex()), &blob.bytes).unwrap();
    }
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut descriptor = top.descriptor();
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    directory.to_owned()
}
