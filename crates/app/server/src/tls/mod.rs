//! TLS with a certificate authority of our own: made once in `DIR/ca`, leaf certificates minted by name when asked for.

use crate::names::{self, HostMeaning};
use isolarium_model::time::Clock;
use isolarium_model::{Region, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(test)]
mod tests;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read or write {path}; check its owner and the disk")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the certificate authority in {path} cannot be used; remove the folder to have a new one made")]
    Authority {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("a certificate could not be made")]
    Mint(#[source] rcgen::Error),
    #[error("a certificate or key was refused")]
    Refused(#[source] rustls::Error),
}

const DAY: i64 = 86_400_000;
const LEAF_DAYS: i64 = 90;
const AUTHORITY_DAYS: i64 = 3650;

/// Certificates kept at one time; made again when they are asked for again.
const MOST_MINTED: usize = 4096;

/// Where a host's own roots usually are; they go into the bundle, so that containers keep trusting the internet.
const HOST_BUNDLES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The certificate authority of one data directory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    bundle: PathBuf,
}

impl Authority {
    /// Opens the authority in `dir` (`ca.pem`, `ca.key`), or makes it, and writes `bundle.pem`: the host's roots and
    /// ours, for containers.
    ///
    /// # Errors
    /// When files cannot be read or written, or do not hold a certificate and its key.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let at = |name: &str| dir.join(name);
        fs::create_dir_all(dir).map_err(|source| TlsError::File {
            path: dir.into(),
            source,
        })?;
        let (pem_path, key_path) = (at("ca.pem"), at("ca.key"));
        let unusable = |source| TlsError::Authority {
            path: dir.into(),
            source,
        };
        // The certificate is written last: with it, the pair is whole.
        if !pem_path.exists() {
            let key = KeyPair::generate().map_err(TlsError::Mint)?;
            let certificate = authority_params(now).self_signed(&key).map_err(TlsError::Mint)?;
            write_whole(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
            write_whole(&pem_path, certificate.pem().as_bytes(), 0o644)?;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| TlsError::File {
                path: path.into(),
                source,
            })
        };
        let pem = read(&pem_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(unusable)?;
        let certificate = der_of(&pem)
            .ok_or(rcgen::Error::CouldNotParseCertificate)
            .map_err(unusable)?;
        // The issuer's name and key usages are those of `authority_params`; only the key differs between directories.
        let issuer = Issuer::new(authority_params(now), key);
        let mut bundle = HOST_BUNDLES
            .iter()
            .find_map(|path| fs::read(path).ok())
            .unwrap_or_default();
        bundle.extend_from_slice(b"\n");
        bundle.extend_from_slice(pem.as_bytes());
        write_whole(&at("bundle.pem"), &bundle, 0o644)?;
        Ok(Self {
            issuer,
            certificate,
            bundle: at("bundle.pem"),
        })
    }

    /// The file with the host's roots and ours.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    fn mint(&self, sans: &[SanType], now: Timestamp) -> Result<CertifiedKey, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Mint)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Isolarium service");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_DAYS);
        let leaf = params.signed_by(&key, &self.issuer).map_err(TlsError::Mint)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::ring::sign::any_supported_type(&private).map_err(TlsError::Refused)?;
        Ok(CertifiedKey::new(
            vec![leaf.der().clone(), self.certificate.clone()],
            signer,
        ))
    }
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Isolarium local authority");
    set_validity(&mut params, now, AUTHORITY_DAYS);
    params
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |at: i64| {
        let date = jiff::Timestamp::from_millisecond(at)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC);
        let small = |n: i8| u8::try_from(n).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), small(date.month()), small(date.day()))
    };
    params.not_before = day(now.0.saturating_sub(DAY));
    params.not_after = day(now.0.saturating_add(days.saturating_mul(DAY)));
}

fn der_of(pem: &str) -> Option<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// Temporary file, fsync, rename: a reader sees the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    crate::layout::write_whole(path, bytes, mode).map_err(|source| TlsError::File {
        path: path.into(),
        source,
    })
}

/// Chooses the certificate by the name the client asks for. Names that are not ours get the one of the listener's own
/// address, so a client that checks names refuses it.
pub struct Certificates {
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    regions: Vec<Region>,
    own: Vec<SanType>,
    /// Behind a gateway endpoint there is S3 and nothing else.
    only_s3: bool,
    /// Keys are the names of [`group`], a fixed number per region, and of endpoints: [`MOST_MINTED`] at most.
    minted: Mutex<HashMap<String, (Timestamp, Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Certificates for the public names in `regions` and for the listener's own `addresses`.
    pub fn new(authority: Arc<Authority>, clock: Arc<dyn Clock>, regions: &[Region], addresses: &[IpAddr]) -> Self {
        let mut own: Vec<SanType> = addresses.iter().copied().map(SanType::IpAddress).collect();
        own.extend("localhost".try_into().ok().map(SanType::DnsName));
        Self {
            authority,
            clock,
            regions: regions.to_vec(),
            own,
            only_s3: false,
            minted: Mutex::default(),
        }
    }

    /// Certificates for the names of S3 in `regions` alone: who asks for another name is shown the one of S3's first
    /// region and refuses it.
    pub fn of_s3(authority: Arc<Authority>, clock: Arc<dyn Clock>, regions: &[Region]) -> Self {
        let own = regions.first().map(|region| format!("s3.{region}.amazonaws.com"));
        let own = own.and_then(|name| name.as_str().try_into().ok());
        Self {
            own: own.map(SanType::DnsName).into_iter().collect(),
            only_s3: true,
            ..Self::new(authority, clock, regions, &[])
        }
    }

    fn certificate(&self, name: Option<&str>) -> Result<Arc<CertifiedKey>, TlsError> {
        let (group, sans) = name
            .filter(|name| !self.only_s3 || is_s3(name))
            .and_then(|name| group(name, &self.regions))
            .unwrap_or_else(|| (String::new(), self.own.clone()));
        self.minted(group, &sans)
    }

    /// The certificate of an interface endpoint (NET-48): `names` are what it covers, `group` is the same for all endpoints that
    /// show the same one.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn of_names(&self, group: &str, names: &[String]) -> Result<Arc<CertifiedKey>, TlsError> {
        let sans = names.iter().map(|name| name.as_str().try_into().map(SanType::DnsName));
        let sans: Vec<SanType> = sans.collect::<Result<_, _>>().map_err(TlsError::Mint)?;
        self.minted(group.to_owned(), &sans)
    }

    fn minted(&self, group: String, sans: &[SanType]) -> Result<Arc<CertifiedKey>, TlsError> {
        let now = self.clock.now();
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, certificate)) = minted.get(&group)
            && now.since(*made).as_millis() < u128::from((LEAF_DAYS * DAY / 2).unsigned_abs())
        {
            return Ok(certificate.clone());
        }
        let fresh = Arc::new(self.authority.mint(sans, now)?);
        // Endpoints come and go.
        if minted.len() >= MOST_MINTED {
            minted.clear();
        }
        minted.insert(group, (now, fresh.clone()));
        Ok(fresh)
    }
}

fn is_s3(name: &str) -> bool {
    matches!(
        names::meaning(name),
        Some(HostMeaning::S3 { .. } | HostMeaning::S3Bucket { .. })
    )
}

/// The certificate a public name belongs to: all buckets of a region share a wildcard.
fn group(name: &str, regions: &[Region]) -> Option<(String, Vec<SanType>)> {
    let name = name.to_ascii_lowercase();
    let served = |region: &Option<Region>| region.as_ref().is_none_or(|region| regions.contains(region));
    let names: Vec<String> = match names::meaning(&name)? {
        HostMeaning::Service { region, .. } if served(&region) => vec![name],
        HostMeaning::S3 { region } if served(&region) => {
            vec![format!("*.{name}"), name]
        }
        HostMeaning::S3Bucket { bucket, region } if served(&region) => {
            let base = name.strip_prefix(&bucket)?.strip_prefix('.')?.to_owned();
            vec![format!("*.{base}"), base]
        }
        HostMeaning::Registry { region, .. } if served(&Some(region.clone())) => {
            let (_, base) = name.split_once('.')?;
            vec![format!("*.{base}")]
        }
        HostMeaning::Notebook { region } if served(&Some(region.clone())) => {
            let (_, base) = name.split_once('.')?;
            // One certificate for all notebooks of a region; clients choose what is asked for.
            if !base.starts_with("notebook.") {
                return None;
            }
            vec![format!("*.{base}")]
        }
        _ => return None,
    };
    let sans = names
        .iter()
        .map(|name| name.as_str().try_into().map(SanType::DnsName))
        .collect::<Result<_, _>>()
        .ok()?;
    Some((names.join(" "), sans))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.certificate(hello.server_name()) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no certificate for a TLS client"
                );
                None
            }
        }
    }
}

/// The TLS settings of a listener: HTTP/1.1 and HTTP/2.
///
/// # Errors
/// When the crypto provider refuses the protocol versions.
pub fn server_config(certificates: Arc<dyn ResolvesServerCert>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
