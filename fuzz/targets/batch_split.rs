//! Objects of transform jobs: however they arrive they fall into the same requests, none above the limit; and paths of
//! strangers select or refuse.
#![no_main]

use isolarium_batch::{Batcher, JsonPath, Unreadable};
use isolarium_model::sagemaker::transform_job::{BatchStrategy, SplitType};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 48;

fn payloads(
    split: SplitType,
    strategy: BatchStrategy,
    object: &[u8],
    piece: usize,
) -> Result<Vec<Vec<u8>>, Unreadable> {
    let mut batcher = Batcher::new(split, strategy, LIMIT, None);
    let mut all = Vec::new();
    for bytes in object.chunks(piece.max(1)) {
        batcher.feed(bytes)?;
        all.extend(std::iter::from_fn(|| batcher.next_ready()));
    }
    batcher.finish()?;
    all.extend(std::iter::from_fn(|| batcher.next_ready()));
    Ok(all.into_iter().map(|payload| payload.bytes).collect())
}

fuzz_target!(|input: (u8, u8, &str, Vec<u8>)| {
    let (kind, piece, path, object) = input;
    let split = match kind % 4 {
        0 => SplitType::None,
        1 => SplitType::Line,
        2 => SplitType::RecordIo,
        _ => SplitType::TfRecord,
    };
    let strategy = if kind & 4 == 0 {
        BatchStrategy::SingleRecord
    } else {
        BatchStrategy::MultiRecord
    };
    let whole = payloads(split, strategy, &object, object.len());
    assert_eq!(whole, payloads(split, strategy, &object, usize::from(piece)));
    if let Ok(all) = whole {
        assert!(all.iter().all(|payload| payload.len() <= LIMIT));
    }
    if let Ok(path) = path.parse::<JsonPath>() {
        let _ = path.columns(usize::from(piece));
        if let Ok(document) = serde_json::from_slice(&object) {
            let _ = path.select(document);
        }
    }
});
