//! What the file may not hold, and how a refusal reads.

use std::path::PathBuf;

use super::super::Rules;
use super::{Authority, SECRET, pem};

#[test]
fn what_is_not_allowed_and_how_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let other = pem(&authority.issue("localhost", 2100)).1;
    for (name, text) in [
        ("c.pem", &certificate),
        ("k.pem", &key),
        ("other.pem", &other),
        ("ca.pem", &authority.pem),
        ("junk.pem", &"junk".to_owned()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("web.yaml");
    let files = "cert_file: c.pem, key_file: k.pem";
    let mut text = String::new();
    for yaml in [
        "tls_server: {}".to_owned(),
        "tls_server_config: {}".to_owned(),
        "tls_server_config: {cert_file: c.pem}".to_owned(),
        "tls_server_config: {cert_file: none.pem, key_file: k.pem}".to_owned(),
        "tls_server_config: {cert_file: junk.pem, key_file: k.pem}".to_owned(),
        "tls_server_config: {cert_file: c.pem, key_file: junk.pem}".to_owned(),
        "tls_server_config: {cert_file: c.pem, key_file: other.pem}".to_owned(),
        "tls_server_config: {cert: x, key: y}".to_owned(),
        format!("tls_server_config: {{{files}, client_ca: x}}"),
        format!("tls_server_config: {{{files}, client_ca_file: ca.pem}}"),
        format!(
            "tls_server_config: {{{files}, client_ca_file: junk.pem, client_auth_type: RequireAndVerifyClientCert}}"
        ),
        format!("tls_server_config: {{{files}, client_auth_type: RequireAndVerifyClientCert}}"),
        format!(
            "tls_server_config: {{{files}, client_ca_file: ca.pem, client_auth_type: RequireAnyClientCert}}"
        ),
        format!("tls_server_config: {{{files}, client_auth_type: Maybe}}"),
        format!("tls_server_config: {{{files}, client_allowed_sans: [a]}}"),
        format!("tls_server_config: {{{files}, min_version: TLS10}}"),
        format!("tls_server_config: {{{files}, min_version: SSL3}}"),
        format!("tls_server_config: {{{files}, min_version: TLS13, max_version: TLS12}}"),
        format!("tls_server_config: {{{files}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}"),
        format!("tls_server_config: {{{files}, curve_preferences: [CurveP521]}}"),
        "http_server_config: {http2: true}".to_owned(),
        "http_server_config: {http3: true}".to_owned(),
        "http_server_config: {headers: {Server: x}}".to_owned(),
        "http_server_config: {headers: {X-Frame-Options: \"a\\nb\"}}".to_owned(),
        "basic_auth_users: {ops: secret}".to_owned(),
        "basic_auth_users: {ops: $2b$31$VLcR7n3gZujwS9bATypZ1eLbqmK25L1PYIVEiS9uUe6ygJ86HMsle}"
            .to_owned(),
        format!("basic_auth_users: {{'a:b': {SECRET}}}"),
        "basic_auth_users: [ops]".to_owned(),
        "rate_limit: {interval: 1s, burst: 5}".to_owned(),
        "a: [".to_owned(),
    ] {
        std::fs::write(&path, &yaml).unwrap();
        let error = Rules::read(&path).expect_err(&yaml).to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        let error = error.replace(dir.path().to_str().unwrap(), "DIR");
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        text.push_str(&format!("{yaml}\n    {error}\n"));
    }
    crate::golden::check_named("web_refusals.txt", &text);
    assert!(Rules::read(&PathBuf::from("/no/such/file")).is_err());
    for fine in [
        "",
        "{}",
        "http_server_config: {http2: false}",
        &format!("tls_server_config: {{{files}, client_auth_type: ''}}"),
    ] {
        std::fs::write(&path, fine).unwrap();
        Rules::read(&path).expect(fine);
    }
}
