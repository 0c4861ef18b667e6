use super::*;
use rustls::pki_types::ServerName;
use std::io::Read;

struct Fixed(Timestamp);
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

fn certificates(dir: &Path) -> Arc<Certificates> {
    let authority = Arc::new(Authority::open(dir, now()).unwrap());
    let regions = ["us-east-1".parse().unwrap()];
    Arc::new(Certificates::new(
        authority,
        Arc::new(Fixed(now())),
        &regions,
        &["127.0.0.1".parse().unwrap()],
    ))
}

/// A handshake in memory, with the client trusting `roots` alone.
fn handshake(certificates: Arc<Certificates>, roots: &Path, name: &str) -> Result<(), String> {
    use rustls::pki_types::pem::PemObject;
    let mut store = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(roots).unwrap() {
        let _ = store.add(der.unwrap());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = rustls::ServerConnection::new(server_config(certificates).unwrap()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut at = wire.as_slice();
        while !at.is_empty() && server.read_tls(&mut at.by_ref()).unwrap() > 0 {
            server.process_new_packets().map_err(|e| e.to_string())?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut at = wire.as_slice();
        while !at.is_empty() && client.read_tls(&mut at.by_ref()).unwrap() > 0 {
            client.process_new_packets().map_err(|e| e.to_string())?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err("the handshake did not end".into())
}

#[test]
fn clients_that_trust_the_bundle_accept_public_names_and_the_listener() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    let bundle = dir.path().join("bundle.pem");
    for name in [
        "api.sagemaker.us-east-1.amazonaws.com",
        "s3.us-east-1.amazonaws.com",
        "data.s3.us-east-1.amazonaws.com",
        "sts.amazonaws.com",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "localhost",
        "127.0.0.1",
    ] {
        handshake(certificates.clone(), &bundle, name).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in ["example.com", "api.sagemaker.eu-west-1.amazonaws.com"] {
        assert!(
            handshake(certificates.clone(), &bundle, name).is_err(),
            "{name} is not ours to certify"
        );
    }
}

#[test]
fn clients_that_do_not_trust_the_authority_refuse() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let certificates = certificates(ours.path());
    Authority::open(theirs.path(), now()).unwrap();
    assert!(
        handshake(certificates.clone(), &ours.path().join("ca.pem"), "localhost").is_ok(),
        "control"
    );
    assert!(handshake(certificates, &theirs.path().join("ca.pem"), "localhost").is_err());
}

#[test]
fn the_authority_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let before = fs::read(dir.path().join("ca.pem")).unwrap();
    let again = certificates(dir.path());
    assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), before);
    assert!(handshake(again, &dir.path().join("ca.pem"), "localhost").is_ok());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn buckets_share_one_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    for n in 0..20 {
        certificates
            .certificate(Some(&format!("bucket-{n}.s3.us-east-1.amazonaws.com")))
            .unwrap();
    }
    assert_eq!(certificates.minted.lock().unwrap().len(), 1);
}
