//! A host, a bucket, a registry and a log store in memory. They keep state and fail on request.

use crate::cut::{Cuts, Why};
use crate::deps::{Deps, Seen};
use crate::fleets::Fleets;
use crate::network::{Networks, NoDoors, ServiceRanges};
use crate::settings::ReconcileSettings;
use crate::transfer::{Actor, Image, Layer, LogPiece, NewVolumeKey, ObjectEntry, Transfer, TransferError, Via};
use crate::workdir::WorkDir;
use isolarium_model::metrics::Sample;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::network::Sight;
use isolarium_model::sagemaker::volume::SealedVolumeKey;
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Arn, Key, Scope, Sha256Digest, Timestamp, WorkloadId};
use isolarium_runtime::executor::{
    BlockedAttempt, ExecutorError, ExitStatus, LaunchSpec, LogChunk, LogLine, Mount, Observed, PackFormat, Packed,
    VolumeKey, VolumeSpec, WorkloadState,
};
use isolarium_runtime::fake::FakeVpcs;
use isolarium_runtime::{Archives, Dial, EgressReport, Executor};
use isolarium_store::StateStore;
use isolarium_store::state::memory::MemoryState;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

pub(crate) const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1";

/// One container of the fake host.
#[derive(Clone)]
pub(crate) struct Fake {
    pub spec: LaunchSpec,
    pub state: WorkloadState,
    pub log: Vec<LogLine>,
    /// Files by (scratch, path).
    pub files: BTreeMap<(String, String), Vec<u8>>,
    pub attempts: Vec<BlockedAttempt>,
    pub sight: Sight,
    /// Signals in order: `false` is SIGTERM, `true` SIGKILL.
    pub signals: Vec<bool>,
    /// Exit code on SIGTERM; `None` ignores it.
    pub on_term: Option<i32>,
    pub answers_ping: bool,
    /// What the input mount held at launch: path to text.
    pub input: BTreeMap<String, String>,
}

/// From a request's line, head and body to status and body. `None` says nothing.
pub(crate) type Answers = dyn Fn(&str, &str, &[u8]) -> Option<(u16, Vec<u8>)> + Send + Sync;

/// Speaks HTTP over one connection until it closes.
fn answer_all(stream: UnixStream, answers: &Answers) {
    use std::io::{BufRead, BufReader};
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let (mut line, mut head) = (String::new(), String::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut field = String::new();
            if reader.read_line(&mut field).unwrap_or(0) == 0 {
                return;
            }
            if field.trim().is_empty() {
                break;
            }
            head.push_str(&field.to_ascii_lowercase());
        }
        let mut body = Vec::new();
        if head.contains("transfer-encoding: chunked") {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk).unwrap();
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = head.lines().find_map(|field| field.strip_prefix("content-length: ")) {
            body.resize(length.trim().parse().unwrap(), 0);
            if reader.read_exact(&mut body).is_err() {
                return;
            }
        }
        let Some((status, answer)) = answers(line.trim(), &head, &body) else {
            // Held open, and silent, until the asker goes.
            let _ = reader.read(&mut [0; 1]);
            return;
        };
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        if writer
            .write_all(text.as_bytes())
            .and_then(|()| writer.write_all(&answer))
            .is_err()
        {
            return;
        }
    }
}

#[derive(Default)]
pub(crate) struct Inner {
    pub containers: BTreeMap<WorkloadId, Fake>,
    pub launches: usize,
    /// How long a model archive takes.
    pub unpacking_takes: Duration,
    /// How long a listing of objects takes.
    pub listing_takes: Duration,
    /// Scratch files put there before the launch.
    staged: BTreeMap<WorkloadId, BTreeMap<(String, String), Vec<u8>>>,
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Keys of the key store under which objects were stored.
    pub sealed: BTreeMap<String, String>,
    /// Encrypted volumes that were made and are there.
    pub volumes: Vec<(WorkloadId, VolumeSpec)>,
    /// (group, stream) to lines.
    pub streams: BTreeMap<(String, String), Vec<String>>,
    /// Metrics that were put.
    pub metrics: Vec<Sample>,
    /// Offsets of log sources.
    pub sources: BTreeMap<String, u64>,
    /// Calls that fail: name to the error's text. `denied:` in front makes it a denial, `away` an absent node, `no path` a transfer that finds none, `held` a transfer that lasts until it is mended or cut, `held:ACCOUNT` only one of that account.
    pub failing: BTreeMap<&'static str, String>,
    /// Every access as (role, call, what).
    pub accesses: Vec<(String, String, String)>,
    /// By which way each access went.
    pub ways: Vec<(String, Option<Via>)>,
    /// Interfaces from which everything was closed.
    pub left: Vec<Via>,
    pub unpacked_layers: usize,
    pub removed: Vec<WorkloadId>,
    /// Workloads whose launch finds the node away.
    pub unlaunchable: std::collections::BTreeSet<WorkloadId>,
    /// What new containers do: answer pings.
    pub new_answer_ping: bool,
    pub new_on_term: Option<i32>,
    /// What containers answer; by default they know nothing but pings.
    pub answers: Option<Arc<Answers>>,
    changes: u64,
    peers: Vec<UnixStream>,
}

/// The whole fake world.
pub(crate) struct World {
    pub inner: Mutex<Inner>,
    changed: Condvar,
    pub clock: Clockwork,
    ids: AtomicU64,
    pub directory: tempfile::TempDir,
    pub store: Arc<MemoryState>,
    pub vpcs: Arc<FakeVpcs>,
    pub cuts: Arc<Cuts>,
}

pub(crate) struct Clockwork(AtomicI64);

impl Clockwork {
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

struct SharedClock(Arc<World>);

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.clock.0.load(Ordering::SeqCst))
    }
}

/// The real time: for tests of the driver, whose timers are real.
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Timestamp(i64::try_from(since.as_millis()).unwrap())
    }
}

pub(crate) fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::folded(&scope(), name)
}

fn digest(n: u64) -> Sha256Digest {
    format!("sha256:{n:064x}").parse().unwrap()
}

impl World {
    pub fn new() -> Arc<Self> {
        let inner = Inner {
            new_answer_ping: true,
            new_on_term: Some(143),
            ..Inner::default()
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            clock: Clockwork(AtomicI64::new(1_700_000_000_000)),
            ids: AtomicU64::new(1),
            directory: tempfile::tempdir().unwrap(),
            store: Arc::new(MemoryState::new()),
            vpcs: Arc::default(),
            cuts: Arc::default(),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn state(&self) -> &dyn StateStore {
        &*self.store
    }

    /// Changes of the host so far.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.0.load(Ordering::SeqCst))
    }

    pub fn deps(self: &Arc<Self>) -> Deps {
        let clock = Arc::new(SharedClock(Arc::clone(self)));
        self.deps_with(ReconcileSettings::default(), clock)
    }

    pub fn deps_with(self: &Arc<Self>, settings: ReconcileSettings, clock: Arc<dyn Clock>) -> Deps {
        Deps {
            store: self.store.clone(),
            executor: self.clone(),
            archives: self.clone(),
            dial: self.clone(),
            egress: self.clone(),
            transfer: self.clone(),
            clock,
            ids: self.clone(),
            networks: Networks::new(
                self.store.clone(),
                self.vpcs.clone(),
                Arc::new(NoDoors),
                ServiceRanges::default(),
            ),
            cuts: self.cuts.clone(),
            scheduler: Default::default(),
            held: Default::default(),
            captured: Default::default(),
            asynchronous: Default::default(),
            work: WorkDir::new(self.directory.path()),
            settings,
            fleets: Arc::new(Fleets::default()),
            seen: Seen::default(),
            unpacked: Mutex::new(HashSet::new()),
        }
    }

    /// What the driver's watch thread does between steps.
    pub fn look(&self, deps: &Deps) {
        let states = self
            .observe()
            .unwrap()
            .into_iter()
            .map(|one| (one.workload, one.state))
            .collect();
        deps.seen.replace(states);
    }

    pub fn put_object(&self, uri: &str, bytes: &[u8]) {
        self.lock().objects.insert(uri.into(), bytes.to_vec());
    }

    pub fn object(&self, uri: &str) -> Option<Vec<u8>> {
        self.lock().objects.get(uri).cloned()
    }

    /// Names and texts of the files in a gzipped tar object.
    pub fn archive(&self, uri: &str) -> BTreeMap<String, String> {
        untar(flate2::read::GzDecoder::new(&*self.object(uri).unwrap()))
    }

    pub fn container(&self, workload: &WorkloadId) -> Fake {
        self.lock().containers.get(workload).cloned().unwrap()
    }

    pub fn with<T>(&self, workload: &WorkloadId, act: impl FnOnce(&mut Fake) -> T) -> T {
        let mut inner = self.lock();
        let result = act(inner.containers.get_mut(workload).unwrap());
        inner.changes += 1;
        self.changed.notify_all();
        result
    }

    pub fn print(&self, workload: &WorkloadId, text: &str) {
        let time = self.now();
        self.with(workload, |one| {
            one.log.push(LogLine {
                time,
                text: text.into(),
            })
        });
    }

    pub fn write(&self, workload: &WorkloadId, scratch: &str, path: &str, text: &str) {
        self.with(workload, |one| {
            one.files
                .insert((scratch.into(), path.into()), text.as_bytes().to_vec())
        });
    }

    pub fn exit(&self, workload: &WorkloadId, code: i32) {
        let now = self.now();
        self.with(workload, |one| one.state = exited(code, now));
    }

    pub fn fail(&self, call: &'static str, text: &str) {
        self.lock().failing.insert(call, text.into());
    }

    pub fn mend(&self, call: &'static str) {
        self.lock().failing.remove(call);
        self.changed.notify_all();
    }

    fn check(&self, call: &'static str) -> Result<(), ExecutorError> {
        match self.lock().failing.get(call).map(String::as_str) {
            None => Ok(()),
            Some("away") => Err(ExecutorError::Unreachable("away".into())),
            Some(text) => Err(match text.split_once(':') {
                Some(("seal", why)) => ExecutorError::Seal(why.into()),
                Some(("host", why)) => ExecutorError::Host(why.into()),
                _ => ExecutorError::Unstartable(text.into()),
            }),
        }
    }

    fn access(&self, actor: &Actor, call: &'static str, what: &str) -> Result<(), TransferError> {
        let mut inner = self.lock();
        inner
            .accesses
            .push((actor.role_arn.to_string(), call.into(), what.into()));
        inner.ways.push((call.into(), actor.via));
        let cut = self.cuts.of(&actor.owner_arn);
        let here = format!("held:{}", actor.scope.account);
        let holds = |text: &String| text == "held" || *text == here;
        while inner.failing.get(call).is_some_and(holds) {
            match cut.why() {
                None => {}
                Some(Why::Unwanted) => return Err(TransferError::Cut),
                Some(Why::TooLong(_)) => return Err(TransferError::Unusable("it lasted too long".into())),
            }
            inner = self.changed.wait_timeout(inner, Duration::from_millis(5)).unwrap().0;
        }
        match inner.failing.get(call) {
            None => Ok(()),
            Some(text) if text.starts_with("held:") => Ok(()),
            Some(text) if text == "no path" => Err(TransferError::NoPath(text.clone())),
            Some(text) if text == "engine" => Err(TransferError::Engine("the fake's fault".into())),
            Some(text) => match text.strip_prefix("denied:") {
                Some(text) => Err(TransferError::Denied(text.into())),
                None => Err(TransferError::Unusable(text.clone())),
            },
        }
    }

    pub fn lines(&self, group: &str, stream: &str) -> Vec<String> {
        self.lock()
            .streams
            .get(&(group.into(), stream.into()))
            .cloned()
            .unwrap_or_default()
    }
}

fn exited(code: i32, now: Timestamp) -> WorkloadState {
    let signal = (code > 128).then_some(code - 128);
    WorkloadState::Exited(ExitStatus {
        code,
        signal,
        out_of_memory: false,
        lost: false,
        started: now,
        ended: now,
    })
}

fn untar(reader: impl Read) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(reader);
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(entry.path().unwrap().to_str().unwrap().to_string(), text);
    }
    files
}

fn tree(root: &Path, at: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            tree(root, &path, into);
        } else if path.is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            into.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

impl World {
    fn volume(&self, workload: &WorkloadId) -> std::path::PathBuf {
        self.directory.path().join(workload.as_str()).join("on-volume")
    }
}

impl Executor for World {
    fn launch(&self, spec: &LaunchSpec) -> Result<(), ExecutorError> {
        self.check("launch")?;
        let root = self.directory.path().join(spec.workload.as_str());
        if !root.is_dir() {
            return Err(ExecutorError::Host("not prepared".into()));
        }
        let now = self.now();
        let mut input = BTreeMap::new();
        for mount in &spec.mounts {
            let at = match mount {
                Mount::Input { source, .. } => root.join(source),
                Mount::Copied { source, .. } => self.volume(&spec.workload).join(source),
                Mount::Scratch { .. } | Mount::Volume { .. } => continue,
            };
            tree(&at, &at, &mut input);
        }
        let mut inner = self.lock();
        if inner.containers.contains_key(&spec.workload) {
            return Ok(());
        }
        if inner.unlaunchable.contains(&spec.workload) {
            return Err(ExecutorError::Unreachable("away".into()));
        }
        inner.launches += 1;
        inner.changes += 1;
        let fake = Fake {
            spec: spec.clone(),
            state: WorkloadState::Running { started: now },
            log: Vec::new(),
            files: inner.staged.remove(&spec.workload).unwrap_or_default(),
            attempts: Vec::new(),
            sight: Sight::default(),
            signals: Vec::new(),
            on_term: inner.new_on_term,
            answers_ping: inner.new_answer_ping,
            input,
        };
        inner.containers.insert(spec.workload.clone(), fake);
        self.changed.notify_all();
        Ok(())
    }

    fn release(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.check("release")?;
        let mut inner = self.lock();
        let one = inner.containers.get_mut(workload).ok_or(ExecutorError::Unknown)?;
        one.spec.held = false;
        Ok(())
    }

    fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        self.check("observe")?;
        let inner = self.lock();
        let all = inner.containers.iter().map(|(workload, one)| Observed {
            workload: workload.clone(),
            owner_arn: one.spec.owner_arn.clone(),
            state: one.state.clone(),
        });
        Ok(all.collect())
    }

    fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError> {
        self.check("observe")?;
        self.observe()?
            .into_iter()
            .find(|one| one.workload == *workload)
            .ok_or(ExecutorError::Unknown)
    }

    fn terminate(&self, workload: &WorkloadId, kill: bool) -> Result<(), ExecutorError> {
        self.check("terminate")?;
        let now = self.now();
        let mut inner = self.lock();
        inner.changes += 1;
        self.changed.notify_all();
        let one = inner.containers.get_mut(workload).ok_or(ExecutorError::Unknown)?;
        one.signals.push(kill);
        let code = if kill { Some(137) } else { one.on_term };
        if let (Some(code), WorkloadState::Running { .. }) = (code, &one.state) {
            one.state = exited(code, now);
        }
        Ok(())
    }

    fn remove(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.check("remove")?;
        let mut inner = self.lock();
        inner.containers.remove(workload);
        inner.staged.remove(workload);
        inner.removed.push(workload.clone());
        inner.volumes.retain(|(of, _)| of != workload);
        let _ = fs::remove_dir_all(self.directory.path().join(workload.as_str()));
        Ok(())
    }

    fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        self.check("changed")?;
        let inner = self.lock();
        let before = inner.changes;
        drop(
            self.changed
                .wait_timeout_while(inner, timeout, |inner| inner.changes == before)
                .unwrap(),
        );
        Ok(())
    }

    fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        self.check("read_log")?;
        let inner = self.lock();
        let one = inner.containers.get(workload).ok_or(ExecutorError::Unknown)?;
        let start = usize::try_from(offset).unwrap();
        // Two lines at a time, so that reading takes several calls.
        assert!(max_bytes > 0);
        let lines: Vec<LogLine> = one.log.iter().skip(start).take(2).cloned().collect();
        let next = offset + lines.len() as u64;
        let ended = !matches!(one.state, WorkloadState::Running { .. });
        Ok(LogChunk {
            lines,
            next,
            complete: ended && next == one.log.len() as u64,
        })
    }

    fn prepare(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.check("prepare")?;
        fs::create_dir_all(self.directory.path().join(workload.as_str())).unwrap();
        Ok(())
    }

    fn make_volume(&self, workload: &WorkloadId, volume: &VolumeSpec, _: &VolumeKey) -> Result<(), ExecutorError> {
        self.check("make_volume")?;
        fs::create_dir_all(self.volume(workload)).unwrap();
        self.lock().volumes.push((workload.clone(), volume.clone()));
        Ok(())
    }

    fn open_volume(&self, workload: &WorkloadId) -> Result<OwnedFd, ExecutorError> {
        self.check("open_volume")?;
        fs::File::open(self.volume(workload))
            .map(OwnedFd::from)
            .map_err(|_| ExecutorError::Unknown)
    }

    fn close_volume(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.check("close_volume")?;
        self.lock().volumes.retain(|(of, _)| of != workload);
        match fs::remove_dir_all(self.volume(workload)) {
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Archives for World {
    fn unpack_layer(&self, blob: OwnedFd, _: &Sha256Digest) -> Result<(), ExecutorError> {
        drop(blob);
        self.lock().unpacked_layers += 1;
        self.check("unpack_layer")
    }

    fn unpack_archive(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        self.check("unpack_archive")?;
        let takes = self.lock().unpacking_takes;
        if limit.is_some_and(|limit| takes > limit) {
            return Err(ExecutorError::Refused("it took too long".into()));
        }
        self.clock.advance(takes);
        let files = untar(flate2::read::GzDecoder::new(File::from(archive)));
        let mut inner = self.lock();
        let staged = inner.staged.entry(workload.clone()).or_default();
        for (name, text) in files {
            staged.insert((scratch.into(), name), text.into_bytes());
        }
        Ok(())
    }

    fn unpack_model(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        folder: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        self.unpack_archive(archive, workload, &format!("{scratch}/{folder}/model"), limit)
    }

    fn remove_model(&self, workload: &WorkloadId, scratch: &str, folder: &str) -> Result<(), ExecutorError> {
        self.check("remove_model")?;
        let below = format!("{scratch}/{folder}/model");
        if let Some(staged) = self.lock().staged.get_mut(workload) {
            staged.retain(|(at, _), _| *at != below);
        }
        Ok(())
    }

    fn pack(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        format: PackFormat,
        out: OwnedFd,
    ) -> Result<Packed, ExecutorError> {
        self.check("pack")?;
        let files = self
            .lock()
            .containers
            .get(workload)
            .ok_or(ExecutorError::Unknown)?
            .files
            .clone();
        let mut archive = tar::Builder::new(Vec::new());
        let mut entries = 0;
        for ((_, name), bytes) in files.iter().filter(|((at, _), _)| at == scratch) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, &bytes[..]).unwrap();
            entries += 1;
        }
        let bytes = archive.into_inner().unwrap();
        let mut file = File::from(out);
        match format {
            PackFormat::Tar => file.write_all(&bytes).unwrap(),
            PackFormat::TarGz => {
                let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                gzip.write_all(&bytes).unwrap();
                gzip.finish().unwrap();
            }
        }
        Ok(Packed {
            entries,
            bytes: bytes.len() as u64,
        })
    }

    fn read_file(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ExecutorError> {
        let inner = self.lock();
        let one = inner.containers.get(workload).ok_or(ExecutorError::Unknown)?;
        let file = one.files.get(&(scratch.to_string(), path.to_string()));
        Ok(file.map(|bytes| bytes.iter().copied().take(max).collect()))
    }
}

impl Dial for World {
    fn dial(&self, workload: &WorkloadId, port: u16, _: Duration) -> Result<OwnedFd, ExecutorError> {
        assert_eq!(port % 100, 80);
        let mut inner = self.lock();
        let one = inner.containers.get(workload).ok_or(ExecutorError::Unknown)?;
        if !one.answers_ping || !matches!(one.state, WorkloadState::Running { .. }) {
            return Err(ExecutorError::Host("connection refused".into()));
        }
        let (here, mut there) = UnixStream::pair().unwrap();
        if let Some(answers) = inner.answers.clone() {
            std::thread::spawn(move || answer_all(there, &*answers));
            return Ok(here.into());
        }
        there
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        inner.peers.push(there);
        Ok(here.into())
    }
}

impl EgressReport for World {
    fn attempts(&self, workload: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError> {
        Ok(self
            .lock()
            .containers
            .get(workload)
            .map(|one| one.attempts.clone())
            .unwrap_or_default())
    }

    fn sight(&self, workload: &WorkloadId) -> Result<Sight, ExecutorError> {
        match self.lock().containers.get(workload) {
            Some(one) => Ok(one.sight),
            None => Err(ExecutorError::Unknown),
        }
    }
}

impl Transfer for World {
    fn resolve_image(&self, actor: &Actor, reference: &str) -> Result<Image, TransferError> {
        self.access(actor, "resolve_image", reference)?;
        if reference != IMAGE {
            return Err(TransferError::Unusable(format!("no image {reference}")));
        }
        Ok(Image {
            digest: digest(1),
            layers: vec![Layer {
                diff_id: digest(2),
                blob: digest(3),
            }],
            entrypoint: vec!["python3".into(), "/app/main.py".into()],
            cmd: vec!["help".into()],
            env: vec![
                ("PATH".into(), "/usr/bin".into()),
                ("AWS_ACCESS_KEY_ID".into(), "leftover".into()),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), "http://leftover".into()),
            ],
            workdir: String::new(),
            user: String::new(),
            labels: [crate::container::BINDS_TO_PORT, crate::container::LOADS_MODELS]
                .map(|label| (label.into(), "true".into()))
                .into(),
        })
    }

    fn open_layer(&self, _: &Layer) -> Result<OwnedFd, TransferError> {
        Ok(tempfile::tempfile().unwrap().into())
    }

    fn may_at_ec2(&self, actor: &Actor, action: &'static str, _: &[Arn]) -> Result<(), TransferError> {
        self.access(actor, action, "ec2")
    }

    fn leave(&self, via: Via) {
        self.lock().left.push(via);
    }

    fn list(&self, actor: &Actor, prefix: &S3Uri) -> Result<Vec<ObjectEntry>, TransferError> {
        self.access(actor, "list", &prefix.to_string())?;
        let bucket = format!("s3://{}/", prefix.bucket);
        let inner = self.lock();
        self.clock.advance(inner.listing_takes);
        let entries = inner.objects.iter().filter_map(|(uri, bytes)| {
            let key = uri.strip_prefix(&bucket)?.to_string();
            key.starts_with(&prefix.key).then_some(ObjectEntry {
                key,
                bytes: bytes.len() as u64,
            })
        });
        Ok(entries.collect())
    }

    fn read(&self, actor: &Actor, object: &S3Uri, max: usize) -> Result<Vec<u8>, TransferError> {
        self.access(actor, "read", &object.to_string())?;
        let bytes = self.object(&object.to_string());
        let bytes = bytes.ok_or_else(|| TransferError::Unusable(format!("no object {object}")))?;
        if bytes.len() > max {
            Err(TransferError::Unusable("too large".into()))
        } else {
            Ok(bytes)
        }
    }

    fn open(&self, actor: &Actor, object: &S3Uri) -> Result<OwnedFd, TransferError> {
        use std::io::Seek;
        self.access(actor, "open", &object.to_string())?;
        let bytes = self.object(&object.to_string());
        let bytes = bytes.ok_or_else(|| TransferError::Unusable(format!("no object {object}")))?;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        Ok(file.into())
    }

    fn link(&self, actor: &Actor, object: &S3Uri, to: &Path) -> Result<bool, TransferError> {
        self.access(actor, "link", &object.to_string())?;
        if actor.copies.is_some() && object.key.contains("encrypted") {
            return Ok(false);
        }
        let bytes = self.object(&object.to_string());
        let bytes = bytes.ok_or_else(|| TransferError::Unusable(format!("no object {object}")))?;
        fs::write(to, bytes).map_err(|error| TransferError::Engine(error.into()))?;
        Ok(true)
    }

    fn copy(&self, actor: &Actor, object: &S3Uri, to: &Path) -> Result<(), TransferError> {
        self.access(actor, "copy", &object.to_string())?;
        let bytes = self.object(&object.to_string());
        let bytes = bytes.ok_or_else(|| TransferError::Unusable(format!("no object {object}")))?;
        fs::write(to, bytes).map_err(|error| TransferError::Engine(error.into()))
    }

    fn volume_key(&self, actor: &Actor, key: &str) -> Result<NewVolumeKey, TransferError> {
        self.access(actor, "volume_key", key)?;
        Ok(NewVolumeKey {
            key: VolumeKey::new([1; 32]),
            sealed: SealedVolumeKey {
                key_arn: "arn:aws:kms:us-east-1:123456789012:key/k".parse().unwrap(),
                sealed: key.into(),
            },
        })
    }

    fn open_volume_key(&self, actor: &Actor, sealed: &SealedVolumeKey) -> Result<VolumeKey, TransferError> {
        self.access(actor, "open_volume_key", &sealed.sealed)?;
        Ok(VolumeKey::new([1; 32]))
    }

    fn put(&self, actor: &Actor, object: &S3Uri, from: &Path) -> Result<(), TransferError> {
        self.access(actor, "put", &object.to_string())?;
        self.put_object(&object.to_string(), &fs::read(from).unwrap());
        if let Some(key) = &actor.kms_key {
            self.lock().sealed.insert(object.to_string(), key.clone());
        }
        Ok(())
    }

    fn delete(&self, actor: &Actor, object: &S3Uri) -> Result<(), TransferError> {
        self.access(actor, "delete", &object.to_string())?;
        self.lock().objects.remove(&object.to_string());
        Ok(())
    }

    fn append_log(&self, actor: &Actor, group: &str, stream: &str, piece: &LogPiece<'_>) -> Result<u64, TransferError> {
        self.access(actor, "append_log", stream)?;
        let mut inner = self.lock();
        let at = inner.sources.get(piece.source).copied().unwrap_or(0);
        if at != piece.from {
            return Ok(at);
        }
        inner.sources.insert(piece.source.into(), piece.next);
        let lines = inner.streams.entry((group.into(), stream.into())).or_default();
        lines.extend(piece.lines.iter().map(|line| line.text.clone()));
        Ok(piece.next)
    }

    fn put_metrics(&self, actor: &Actor, namespace: &str, samples: Vec<Sample>) -> Result<(), TransferError> {
        self.access(actor, "put_metrics", namespace)?;
        self.lock().metrics.extend(samples);
        Ok(())
    }

    fn log_sources(&self) -> Result<Vec<String>, TransferError> {
        Ok(self.lock().sources.keys().cloned().collect())
    }

    fn forget_log(&self, source: &str) -> Result<(), TransferError> {
        self.lock().sources.remove(source);
        Ok(())
    }
}

impl IdSource for World {
    fn hex(&self, digits: usize) -> String {
        let n = self.ids.fetch_add(1, Ordering::SeqCst);
        let text = format!("{n:0digits$x}");
        let text: String = text.chars().rev().collect();
        // Names of links are made of the last digits of ids.
        match text.get(..digits.saturating_sub(6)) {
            Some(first) if digits >= 17 => format!("{first}{n:06x}"),
            _ => text,
        }
    }
}
