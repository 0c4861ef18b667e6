//! Checksums of streamed bytes, and of objects made of parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use isolarium_model::s3::{Checksum, ChecksumAlgorithm, ChecksumKind};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// MD5 (for the ETag) and any further checksums of one pass over bytes.
pub struct Digests {
    md5: Md5,
    others: Vec<Running>,
}

enum Running {
    Crc(ChecksumAlgorithm, Box<crc_fast::Digest>),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Digests {
    /// Starts MD5 and the named algorithms.
    pub fn new(algorithms: &[ChecksumAlgorithm]) -> Self {
        let mut wanted = algorithms.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let others = wanted
            .into_iter()
            .map(|algorithm| match crc(algorithm) {
                Some(kind) => Running::Crc(algorithm, Box::new(crc_fast::Digest::new(kind))),
                None if algorithm == ChecksumAlgorithm::Sha1 => Running::Sha1(Sha1::new()),
                None => Running::Sha256(Sha256::new()),
            })
            .collect();
        Self {
            md5: Md5::new(),
            others,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        for other in &mut self.others {
            match other {
                Running::Crc(_, digest) => digest.update(bytes),
                Running::Sha1(digest) => digest.update(bytes),
                Running::Sha256(digest) => digest.update(bytes),
            }
        }
    }

    /// The MD5 and the checksums over all bytes.
    pub fn finish(self) -> ([u8; 16], Vec<Checksum>) {
        let others = self.others.into_iter().map(|other| match other {
            Running::Crc(algorithm, digest) => full(algorithm, crc_text(algorithm, digest.finalize())),
            Running::Sha1(digest) => full(ChecksumAlgorithm::Sha1, STANDARD.encode(digest.finalize())),
            Running::Sha256(digest) => full(ChecksumAlgorithm::Sha256, STANDARD.encode(digest.finalize())),
        });
        (self.md5.finalize().into(), others.collect())
    }
}

fn full(algorithm: ChecksumAlgorithm, value: String) -> Checksum {
    Checksum {
        algorithm,
        kind: ChecksumKind::FullObject,
        value,
    }
}

fn crc(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

/// A CRC in network byte order as base64: four bytes, or eight for CRC-64.
fn crc_text(algorithm: ChecksumAlgorithm, value: u64) -> String {
    let bytes = value.to_be_bytes();
    let skip = if algorithm == ChecksumAlgorithm::Crc64Nvme {
        0
    } else {
        4
    };
    STANDARD.encode(bytes.get(skip..).unwrap_or(&bytes))
}

/// The composite checksum of a multipart object: the algorithm over the parts' raw checksums, then `-` and their
/// number. `None` when a part's text is not base64.
pub fn composite(algorithm: ChecksumAlgorithm, parts: &[&str]) -> Option<Checksum> {
    let mut digests = Digests::new(&[algorithm]);
    for part in parts {
        digests.update(&STANDARD.decode(part).ok()?);
    }
    let (_, sums) = digests.finish();
    let value = format!("{}-{}", sums.first()?.value, parts.len());
    Some(Checksum {
        algorithm,
        kind: ChecksumKind::Composite,
        value,
    })
}

/// The CRC of all bytes from the CRCs and sizes of the parts, without reading a byte. `None` for algorithms that
/// cannot be combined (SHA-1, SHA-256).
pub fn combine(algorithm: ChecksumAlgorithm, parts: &[(&str, u64)]) -> Option<Checksum> {
    let kind = crc(algorithm)?;
    let mut all: Option<u64> = None;
    for (text, size) in parts {
        let raw = STANDARD.decode(text).ok()?;
        let value = raw.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        all = Some(match all {
            None => value,
            Some(before) => crc_fast::checksum_combine(kind, before, value, *size),
        });
    }
    Some(full(algorithm, crc_text(algorithm, all?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ChecksumAlgorithm; 5] = [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ];

    fn of(bytes: &[u8]) -> Vec<String> {
        let mut digests = Digests::new(&ALL);
        digests.update(bytes);
        digests.finish().1.into_iter().map(|sum| sum.value).collect()
    }

    #[test]
    fn checksums_match_published_check_values() {
        // The check values of "123456789" in the CRC catalogue and FIPS 180.
        let sums = of(b"123456789");
        assert_eq!(sums[0], STANDARD.encode(0xCBF4_3926_u32.to_be_bytes()));
        assert_eq!(sums[1], STANDARD.encode(0xE306_9283_u32.to_be_bytes()));
        assert_eq!(sums[2], STANDARD.encode(0xAE8B_1486_0A79_9888_u64.to_be_bytes()));
        assert_eq!(
            sums[3],
            STANDARD.encode(hex::decode("f7c3bc1d808e04732adf679965ccc34ca7ae3441").unwrap())
        );
        assert_eq!(
            sums[4],
            STANDARD.encode(hex::decode("15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225").unwrap())
        );
    }

    #[test]
    fn crcs_of_parts_combine_to_the_crc_of_the_whole() {
        let (a, b, c) = (vec![1_u8; 70_000], vec![2_u8; 3], vec![3_u8; 513]);
        let whole = of(&[a.clone(), b.clone(), c.clone()].concat());
        for (at, algorithm) in ALL.into_iter().enumerate() {
            let (x, y, z) = (of(&a), of(&b), of(&c));
            let combined = combine(algorithm, &[(&x[at], 70_000), (&y[at], 3), (&z[at], 513)]);
            match algorithm {
                ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => assert_eq!(combined, None),
                _ => assert_eq!(combined.unwrap().value, whole[at]),
            }
        }
    }
}
