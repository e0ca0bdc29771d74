//! Whom a connection is trusted to lead to, and what this host shows of itself.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::engine::image::error::{ImageError, Insecurity};
use crate::model::host_config::{ClientCertificate, RegistryConfig};

/// Certificates of authorities: the host's own, and those that the host file names for this registry. With the one
/// implementation of cryptography that is linked.
pub fn config(registry: &RegistryConfig, client: Option<&ClientCertificate>) -> Result<TlsConfig, ImageError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &registry.ca {
        None => RootCerts::new_with_certs(own_roots()),
        Some(path) => RootCerts::new_with_certs(&[own_roots(), &certificates(path)?].concat()),
    };
    let client = client.map(client_certificate).transpose()?;
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).unversioned_rustls_crypto_provider(provider).build())
}

/// Read at first use, since most commands make no connection. A certificate that cannot be read is one that signs
/// nothing here.
fn own_roots() -> &'static [Certificate<'static>] {
    static ROOTS: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
    })
}

fn client_certificate(client: &ClientCertificate) -> Result<ClientCert, ImageError> {
    let chain = certificates(&client.certificate)?;
    let pem = read(&client.key)?;
    let key = parse_pem(&pem).find_map(|item| match item {
        Ok(PemItem::PrivateKey(key)) => Some(key),
        _ => None,
    });
    let key: PrivateKey<'static> = key.ok_or_else(|| malformed(&client.key, "it holds no private key in PEM"))?;
    check_pair(&chain, &key).map_err(|problem| malformed(&client.key, &problem))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// Whether the key can be used, and is that of the first certificate.
fn check_pair(chain: &[Certificate<'_>], key: &PrivateKey<'_>) -> Result<(), String> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let key = PrivateKeyDer::try_from(key.der().to_vec()).map_err(str::to_owned)?;
    match CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("it is not the key of `client_certificate`".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, ImageError> {
    let pem = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(malformed(path, "it is no PEM")),
        }
    }
    match found.is_empty() {
        true => Err(malformed(path, "it holds no certificate in PEM")),
        false => Ok(found),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(ImageError::file("read", path))
}

fn malformed(path: &Path, problem: &str) -> ImageError {
    ImageError::Malformed { subject: path.display().to_string(), problem: problem.to_owned() }
}

/// Why there is no secure connection; `None` if the failure is not about that.
pub fn insecurity(error: &io::Error) -> Option<Insecurity> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => Insecurity::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Insecurity::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Insecurity::NotValidYet,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Insecurity::OtherName
            }
            _ => Insecurity::Other,
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => Insecurity::ClientCertificate,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Insecurity::NoTls,
        _ => Insecurity::Other,
    })
}
