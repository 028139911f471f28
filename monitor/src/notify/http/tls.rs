//! Certificates: what a receiver's is held to, and the daemon's own. Files are looked at before each request and read anew when they changed.
//!
//! While new files do not fit together, as between the change of a certificate and of its key, the old ones stay in force.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::TlsFiles;
use crate::notify::secret::{self, read_file};

/// A file of certificates may be this long: bytes. A bundle of all public authorities has a fifth of it.
const MAX_CERTIFICATES: u64 = 1 << 20;

/// The host's own authorities, once they were found: some hundred KiB, for all sinks together.
static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// By what a file's change is seen: time of its change, length, inode. A file that is not there has none.
pub(super) type Signature = [Option<(i64, i64, u64, u64)>; 3];

/// How the files stand now. May block.
pub(super) fn signature(files: &TlsFiles) -> Signature {
    [&files.ca_file, &files.cert_file, &files.key_file].map(|path| {
        let file = std::fs::metadata(path.as_deref()?).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.len(), file.ino()))
    })
}

/// How to speak TLS. Without `verify`, for an address without TLS, no authority is known. May block.
///
/// # Errors
/// One line that names the file.
pub(super) fn config(files: &TlsFiles, verify: bool) -> Result<ClientConfig, String> {
    let roots = match (&files.ca_file, verify) {
        (Some(path), _) => Arc::new(authorities(path)?),
        (None, true) => system()?,
        (None, false) => Arc::new(RootCertStore::empty()),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots);
    let mut config = match (&files.cert_file, &files.key_file) {
        (Some(certificate), Some(key_file)) => builder
            .with_client_auth_cert(certificates(certificate)?, key(key_file)?)
            .map_err(|error| {
                format!("http.tls.cert_file {certificate} and key_file {key_file} do not fit together: {error}")
            })?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            format!("{}: a certificate that is no authority's: {error}", path.display())
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!("{}: {why}: it is to hold PEM certificates", path.display())
    };
    let pem = read_file(path, MAX_CERTIFICATES).map_err(|error| wrong(&error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"no certificate in it")) } else { Ok(found) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!("{}: {why}: it is to hold one PEM private key", path.display())
    };
    let pem = read_file(path, secret::MAX_BYTES).map_err(|error| wrong(&error))?;
    // The reader's own words might repeat what stands in the file.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong(&"no key in it"))
}

fn system() -> Result<Arc<RootCertStore>, String> {
    if let Some(roots) = SYSTEM.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    // A bundle may hold certificates that are not understood; the others count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this host has no certificates of authorities: install ca-certificates, or set http.tls.ca_file".to_owned());
    }
    Ok(Arc::clone(SYSTEM.get_or_init(|| Arc::new(roots))))
}
