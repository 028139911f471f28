//! How TLS is spoken: rustls, with the provider that the sinks use too.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};

use super::file::{ClientAuth, Curve, TlsServer, Version};
use crate::notify::secret::{self, read_file};

/// A file of certificates may be this long: bytes.
const MAX_CERTIFICATES: u64 = 1 << 20;

/// Reads the files. May block.
///
/// # Errors
/// One line that names the key, and the file.
pub(super) fn config(section: &TlsServer) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider(section)?);
    let versions: &[_] = match (section.min_version, section.max_version) {
        (Some(Version::Tls13), _) => &[&TLS13],
        (_, Some(Version::Tls12)) => &[&TLS12],
        (_, _) => &[&TLS13, &TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| format!("tls_server_config: TLS cannot be set up: {error}"))?;
    let builder = match &section.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match section.client_auth_type {
                ClientAuth::VerifyClientCertIfGiven => verifier.allow_unauthenticated(),
                ClientAuth::NoClientCert | ClientAuth::RequireAndVerifyClientCert => verifier,
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| file("client_ca_file", path, &error))?,
            )
        }
    };
    let (certificate, key_file) = (&section.cert_file, &section.key_file);
    let chain = certificates("cert_file", certificate)?;
    let mut config = builder.with_single_cert(chain, key(key_file)?).map_err(|error| {
        format!(
            "tls_server_config: cert_file {} and key_file {} do not fit together: {error}",
            certificate.display(),
            key_file.display()
        )
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(false);
    Ok(config)
}

/// The provider with those suites and key exchanges that are wanted.
fn provider(section: &TlsServer) -> Result<CryptoProvider, String> {
    let mut provider = default_provider();
    if !section.cipher_suites.is_empty() {
        // As in Go, the list is about TLS 1.2: those of 1.3 are all good.
        let of_12 = |suite: &SupportedCipherSuite| suite.tls13().is_none();
        let name = |suite: &SupportedCipherSuite| suite.suite().as_str().unwrap_or_default();
        let all: Vec<_> =
            provider.cipher_suites.iter().filter(|suite| of_12(suite)).copied().collect();
        let mut wanted = Vec::new();
        for suite in &section.cipher_suites {
            // Go's older names lack the hash.
            let meant = suite
                .replace("_CHACHA20_POLY1305", "_CHACHA20_POLY1305_SHA256")
                .replace("_SHA256_SHA256", "_SHA256");
            let found = all.iter().find(|known| name(known) == meant);
            let found = found.ok_or_else(|| {
                let names: Vec<_> = all.iter().map(name).collect();
                format!(
                    "tls_server_config.cipher_suites: {suite:?} is not supported: must be of {}",
                    names.join(", ")
                )
            })?;
            wanted.push(*found);
        }
        provider.cipher_suites.retain(|suite| !of_12(suite));
        provider.cipher_suites.extend(wanted);
    }
    if !section.curve_preferences.is_empty() {
        let groups = section.curve_preferences.iter().map(|curve| match curve {
            Curve::CurveP256 => kx_group::SECP256R1,
            Curve::CurveP384 => kx_group::SECP384R1,
            Curve::X25519 => kx_group::X25519,
        });
        provider.kx_groups = groups.collect();
    }
    Ok(provider)
}

fn file(key: &str, path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("tls_server_config.{key}: {}: {why}", path.display())
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_file", path)? {
        roots.add(certificate).map_err(|error| {
            file("client_ca_file", path, &format!("a certificate that is no authority's: {error}"))
        })?;
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path, MAX_CERTIFICATES).map_err(|error| file(key, path, &error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(file(key, path, &"must hold PEM certificates")),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read_file(path, secret::MAX_BYTES).map_err(|error| file("key_file", path, &error))?;
    // The reader's own words might repeat what stands in the file.
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| file("key_file", path, &"must hold a PEM private key"))
}
