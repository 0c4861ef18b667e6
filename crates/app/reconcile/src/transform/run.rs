//! The objects of one instance's share: cut into requests, sent several at a time, the results put together in the order of
//! the input, each output stored once it is whole (CC-66..77).
//!
//! What is in memory at once are twice as many requests as may run at once, never an object; larger results wait in files, and
//! those that are filtered or joined are held whole within the engine's own bound ([`Held`]). Threads are the run's own; the
//! loop looks at its [`Progress`].

use super::invoke::{self, Answer, Body, Container, Refusal};
use super::share::Object;
use crate::cut::Cut;
use crate::deps::{Deps, StepError};
use crate::driver::{self, Pipeline};
use crate::held::Held;
use crate::transfer::{Actor, Transfer, TransferError};
use crate::volume::OpenVolume;
use crate::workdir::WorkDir;
use flate2::bufread::MultiGzDecoder;
use isolarium_batch::parameters::ExecutionParameters;
use isolarium_batch::{Batcher, Parameters, Payload, Processing, Unreadable};
use isolarium_model::sagemaker::transform_job::{
    AssembleWith, MAX_IN_FLIGHT_MB, MEBIBYTE, ObjectFault, TransformInstance, TransformSpec,
};
use isolarium_model::sagemaker::{TransformJob, TransformJobStatus};
use isolarium_model::time::Clock;
use isolarium_model::{Key, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, LogLine};
use isolarium_store::StateStore;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of an object that are read at once.
const PIECE: usize = 256 << 10;

/// The largest result that filters and joins are applied to: they need it whole.
const LARGEST_RESULT: u64 = 256 << 20;

/// Words of an error that are repeated in the data log.
const LINES: usize = 40;

/// How far a run is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Finished objects of the share, with the ones that earlier runs finished.
    pub done: u64,
    /// Those without an output.
    pub failed: u64,
    /// Whose fault the first of them was, and in which words.
    pub fault: Option<ObjectFault>,
    pub why: Option<String>,
    /// Nothing is left.
    pub finished: bool,
    /// For the data log, and not there yet.
    lines: Vec<LogLine>,
}

/// A run, seen from the loop.
pub(super) struct Running {
    progress: Arc<Mutex<Progress>>,
    cut: Arc<Cut>,
    thread: JoinHandle<()>,
    /// Lines of the data log so far.
    pub said: Option<u64>,
}

impl Running {
    /// How far it is now.
    pub(super) fn progress(&self) -> Progress {
        let progress = locked(&self.progress);
        Progress {
            lines: Vec::new(),
            why: progress.why.clone(),
            ..*progress
        }
    }

    /// Takes the lines for the data log.
    pub(super) fn lines(&self) -> Vec<LogLine> {
        std::mem::take(&mut locked(&self.progress).lines)
    }

    /// Nothing more is sent, read or stored.
    pub(super) fn cancel(&self) {
        self.cut.make();
    }

    /// Its thread has ended.
    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

fn locked(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the container for its parameters and begins to send what is left of the share.
pub(super) fn begin(
    deps: &Deps,
    key: &Key,
    actor: Actor,
    job: &TransformJob,
    instance: &TransformInstance,
    share: Vec<Object>,
) -> Result<Running, StepError> {
    let spec = job.spec.clone();
    let host = |error: &dyn std::fmt::Display| StepError::Executor(ExecutorError::Host(error.to_string()));
    let (input, output) = (&spec.input, &spec.output);
    let processing = Processing::new(
        &spec.processing,
        input.content_type.as_deref(),
        output.accept.as_deref(),
        input.split,
        output.assemble,
    );
    let processing = processing.map_err(|error| host(&error))?;
    // Who filters or joins gets what the data is, unless the request says otherwise.
    let accept = match (&output.accept, &processing) {
        (None, Some(_)) => input.content_type.as_deref(),
        (given, _) => given.as_deref(),
    };
    let workload = &instance.placement.workload;
    let volume = actor.copies.as_ref().map(|workload| OpenVolume::of(deps, workload));
    let volume = volume.transpose().map_err(StepError::Executor)?;
    let directory = match &volume {
        Some(volume) => volume.make_own("transform"),
        None => deps.work.make(workload, "transform"),
    };
    let directory = directory.map_err(|error| host(&error))?;
    let cut = Arc::new(Cut::default());
    let container = Container {
        dial: Arc::clone(&deps.dial),
        workload: workload.clone(),
        cut: Arc::clone(&cut),
        timeout: Duration::from_secs(spec.client.timeout),
        retries: spec.client.retries,
        headers: invoke::headers(input.content_type.as_deref(), accept),
        directory,
        idle: Mutex::default(),
        files: AtomicU64::new(0),
    };
    let progress = Arc::new(Mutex::new(Progress {
        done: instance.done,
        failed: instance.failed,
        fault: instance.fault,
        why: instance.why.clone(),
        ..Progress::default()
    }));
    let run = Run {
        store: Arc::clone(&deps.store),
        key: key.clone(),
        transfer: Arc::clone(&deps.transfer),
        clock: Arc::clone(&deps.clock),
        work: deps.work.clone(),
        volume,
        workload: workload.clone(),
        actor,
        spec,
        processing,
        container,
        progress: Arc::clone(&progress),
        cut: Arc::clone(&cut),
        held: Arc::clone(&deps.held),
        share,
        from: usize::try_from(instance.done).unwrap_or(usize::MAX),
    };
    let thread = driver::beside("transform", move || run.all()).map_err(|error| host(&error))?;
    Ok(Running {
        progress,
        cut,
        thread,
        said: None,
    })
}

struct Run {
    store: Arc<dyn StateStore>,
    key: Key,
    transfer: Arc<dyn Transfer>,
    clock: Arc<dyn Clock>,
    work: WorkDir,
    /// Where its files go, if they must not lie in the clear.
    volume: Option<OpenVolume>,
    workload: WorkloadId,
    actor: Actor,
    spec: TransformSpec,
    processing: Option<Processing>,
    container: Container,
    progress: Arc<Mutex<Progress>>,
    cut: Arc<Cut>,
    held: Arc<Held>,
    share: Vec<Object>,
    from: usize,
}

/// Why an object has no output.
#[derive(Debug)]
struct Failed {
    fault: ObjectFault,
    /// For the data log, a line each.
    lines: Vec<String>,
    /// For FailureReason, where it says more than the log does.
    why: Option<String>,
}

/// One thing to do, in the order of the input.
enum Item {
    Send(Payload),
    /// The object itself, without limit.
    Stream(Object),
    /// The object ends here, or cannot be read on.
    End(Result<(), Failed>),
}

/// What became of it.
enum Done {
    Result(Result<Answer, Failed>),
    End(Result<(), Failed>),
}

impl Run {
    fn all(&self) {
        let told = self.container.execution_parameters();
        let told = told.map(|body| ExecutionParameters::parse(&body)).unwrap_or_default();
        let parameters = Parameters::of(&self.spec, told);
        self.say(&format!(
            "MaxConcurrentTransforms={}, MaxPayloadInMB={}, BatchStrategy={}",
            parameters.max_concurrent,
            parameters.max_payload_mb,
            parameters.strategy.in_container()
        ));
        let width = usize::try_from(parameters.max_concurrent).unwrap_or(1);
        let mut flow = Flow {
            run: self,
            parameters,
            next: self.from,
            reading: None,
            writing: None,
            finishing: self.from,
            failed: None,
        };
        driver::in_order(width, &mut flow, |item| self.act(item));
        if self.cut.why().is_none() {
            locked(&self.progress).finished = true;
        }
    }

    /// A line of the data log, in SageMaker's form.
    fn say(&self, text: &str) {
        let now = self.clock.now();
        let time = jiff::Timestamp::from_millisecond(now.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let line = LogLine {
            time: now,
            text: format!("{}:[sagemaker logs]: {text}", time.strftime("%Y-%m-%dT%H:%M:%S%.3f")),
        };
        locked(&self.progress).lines.push(line);
    }

    /// Whether outputs may be stored: a job that is stopped or fails stores nothing any more (SM-39), and it is the record that
    /// tells. The loop may see it much later, while a step of it brings another instance its model.
    fn may_store(&self) -> Result<bool, Failed> {
        if self.cut.why().is_none() {
            let found = self.store.get::<TransformJob>(&self.key);
            let found = found.map_err(|error| disk(io::Error::other(error)))?;
            if !found.is_some_and(|stored| goes_on(&stored.record)) {
                self.cut.make();
            }
        }
        Ok(self.cut.why().is_none())
    }

    fn act(&self, item: Item) -> Done {
        match item {
            Item::Send(payload) => Done::Result(self.send(&payload)),
            Item::Stream(object) => Done::Result(self.stream(&object)),
            Item::End(end) => Done::End(end),
        }
    }

    fn send(&self, payload: &Payload) -> Result<Answer, Failed> {
        let answer = self.container.invoke(&Body::Bytes(&payload.bytes)).map_err(refused)?;
        let Some(processing) = &self.processing else {
            return Ok(answer);
        };
        let result = match &answer {
            Answer::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Answer::File(file) => file.metadata().map_err(disk)?.len(),
        };
        let input = u64::try_from(payload.input.len()).unwrap_or(u64::MAX);
        let Some(_permit) = self.held.take(result.saturating_add(input), &self.cut) else {
            return Err(disk(io::Error::other("the job ends")));
        };
        let result = match answer {
            Answer::Bytes(bytes) => bytes,
            Answer::File(file) => whole(file).map_err(disk)?,
        };
        let output = processing.output(&payload.input, &result).map_err(unreadable)?;
        drop(result);
        self.container.kept(output).map_err(disk)
    }

    /// CC-70: the object as it is, in chunks.
    fn stream(&self, object: &Object) -> Result<Answer, Failed> {
        let open = || self.open(object).map_err(io::Error::other);
        self.container.invoke(&Body::Stream(&open)).map_err(refused)
    }

    fn open(&self, object: &Object) -> Result<Box<dyn Read>, TransferError> {
        let file = File::from(self.transfer.open(&self.actor, &object.from)?);
        Ok(match self.spec.input.gzip {
            // One member after the other, as gzip itself reads them (CC-76).
            true => Box::new(MultiGzDecoder::new(BufReader::with_capacity(PIECE, file))),
            false => Box::new(file),
        })
    }
}

/// What passes between reading and writing.
struct Flow<'a> {
    run: &'a Run,
    parameters: Parameters,
    /// The next object to be read.
    next: usize,
    reading: Option<Reading<'a>>,
    writing: Option<Writing>,
    /// The object whose results come now.
    finishing: usize,
    /// It failed, and so.
    failed: Option<Failed>,
}

/// An object that is being cut.
struct Reading<'a> {
    number: usize,
    bytes: Option<Box<dyn Read>>,
    batcher: Batcher<'a>,
    /// The next thing is its end.
    over: bool,
    streamed: Option<Object>,
}

/// An output that is being put together.
struct Writing {
    file: BufWriter<File>,
    path: PathBuf,
}

impl<'a> Flow<'a> {
    fn begin(&self, number: usize) -> Option<Reading<'a>> {
        let (run, object) = (self.run, self.run.share.get(number)?);
        let spec = &run.spec;
        let limit = self.parameters.payload_bytes();
        let streamed = self.parameters.streams(spec);
        let most = usize::try_from(MAX_IN_FLIGHT_MB * MEBIBYTE).unwrap_or(usize::MAX);
        let batcher = Batcher::new(
            spec.input.split,
            self.parameters.strategy,
            limit.unwrap_or(most),
            run.processing.as_ref(),
        );
        Some(Reading {
            number,
            bytes: None,
            batcher,
            over: false,
            streamed: streamed.then(|| object.clone()),
        })
    }

    fn read(&mut self) -> Option<Item> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let reading = self.begin(self.next)?;
                self.next += 1;
                reading
            }
        };
        let spoilt = self.failed.is_some() && self.finishing == reading.number;
        if spoilt {
            // Results of the object that are still on their way come first.
            return Some(Item::End(Ok(())));
        }
        if let Some(object) = reading.streamed.take() {
            reading.over = true;
            self.reading = Some(reading);
            return Some(Item::Stream(object));
        }
        match self.cut_on(&mut reading) {
            Ok(Some(payload)) => {
                self.reading = Some(reading);
                Some(Item::Send(payload))
            }
            Ok(None) => Some(Item::End(Ok(()))),
            Err(failed) => Some(Item::End(Err(failed))),
        }
    }

    fn cut_on(&self, reading: &mut Reading<'a>) -> Result<Option<Payload>, Failed> {
        let object = self.run.share.get(reading.number);
        let Some(object) = object.filter(|_| !reading.over) else {
            return Ok(reading.batcher.next_ready());
        };
        if let Some(payload) = reading.batcher.next_ready() {
            return Ok(Some(payload));
        }
        let mut piece = vec![0; PIECE];
        loop {
            if let Some(payload) = reading.batcher.next_ready() {
                return Ok(Some(payload));
            }
            let bytes = match &mut reading.bytes {
                Some(bytes) => bytes,
                None => reading.bytes.insert(self.run.open(object).map_err(moved)?),
            };
            let got = match bytes.read(&mut piece) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Only decompression can fail for a reason of the data.
                    return Err(Failed {
                        fault: ObjectFault::Client,
                        lines: vec![format!("The object cannot be read: {error}")],
                        why: None,
                    });
                }
            };
            if got == 0 {
                reading.over = true;
                reading.batcher.finish().map_err(unreadable)?;
                return Ok(reading.batcher.next_ready());
            }
            let fed = reading.batcher.feed(piece.get(..got).unwrap_or_default());
            fed.map_err(unreadable)?;
        }
    }

    fn write(&mut self, answer: Answer) -> io::Result<()> {
        let run = self.run;
        if self.writing.is_none() {
            self.writing = Some(output(run)?);
        }
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        match answer {
            Answer::Bytes(bytes) => writing.file.write_all(&bytes)?,
            Answer::File(mut file) => {
                io::copy(&mut file, &mut writing.file)?;
            }
        }
        match run.spec.output.assemble {
            AssembleWith::Line => writing.file.write_all(b"\n"),
            AssembleWith::None => Ok(()),
        }
    }

    /// Stores the output of the object whose results have all come.
    fn store(&mut self, object: &Object) -> Result<(), Failed> {
        let writing = match self.writing.take() {
            Some(writing) => writing,
            None => output(self.run).map_err(disk)?,
        };
        let file = writing.file.into_inner().map_err(|error| disk(error.into_error()))?;
        drop(file);
        if !self.run.may_store()? {
            return Ok(());
        }
        let stored = self.run.transfer.put(&self.run.actor, &object.to, &writing.path);
        stored.map_err(|error| Failed {
            why: said(&error).map(|text| format!("Data upload failed:{text}")),
            ..moved(error)
        })
    }

    fn finish(&mut self, end: Result<(), Failed>) {
        let run = self.run;
        let Some(object) = run.share.get(self.finishing) else {
            return;
        };
        let failed = self.failed.take().or(end.err());
        let failed = match failed {
            None => self.store(object).err(),
            failed => failed,
        };
        self.writing = None;
        self.finishing += 1;
        if run.cut.why().is_some() {
            return;
        }
        if let Some(failed) = &failed {
            let about = format!("{}/{}", object.from.bucket, object.from.key);
            for line in failed.lines.iter().take(LINES) {
                run.say(&format!("{about}: {line}"));
            }
        }
        let mut progress = locked(&run.progress);
        progress.done = progress.done.saturating_add(1);
        if let Some(failed) = failed {
            progress.failed = progress.failed.saturating_add(1);
            if progress.fault.is_none() {
                progress.fault = Some(failed.fault);
                progress.why = failed.why;
            }
        }
    }
}

impl Pipeline for Flow<'_> {
    type Item = Item;
    type Done = Done;

    fn next(&mut self) -> Option<Item> {
        if self.run.cut.why().is_some() {
            return None;
        }
        self.read()
    }

    fn take(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Result(Ok(answer))) if self.failed.is_none() => {
                if let Err(error) = self.write(answer) {
                    self.failed = Some(disk(error));
                }
            }
            Some(Done::Result(Ok(_))) => {}
            Some(Done::Result(Err(failed))) => {
                self.failed.get_or_insert(failed);
            }
            Some(Done::End(end)) => self.finish(end),
            None => {
                self.failed.get_or_insert(disk(io::Error::other("a request was lost")));
            }
        }
    }
}

fn goes_on(job: &TransformJob) -> bool {
    job.status == TransformJobStatus::InProgress && job.run.failing.is_none()
}

fn output(run: &Run) -> io::Result<Writing> {
    let (file, path) = match &run.volume {
        Some(volume) => volume.archive("transform.out")?,
        None => run.work.archive(&run.workload, "transform.out")?,
    };
    Ok(Writing {
        file: BufWriter::with_capacity(PIECE, file),
        path,
    })
}

fn whole(file: File) -> io::Result<Vec<u8>> {
    if file.metadata()?.len() > LARGEST_RESULT {
        return Err(io::Error::other("the result is too large to be filtered or joined"));
    }
    let mut all = Vec::new();
    BufReader::new(file).read_to_end(&mut all)?;
    Ok(all)
}

/// The container's refusal, in the lines of SageMaker's data log.
fn refused(refusal: Refusal) -> Failed {
    let words = |first: String, body: &str| {
        let mut lines = vec![first, String::new(), "Message:".into()];
        lines.extend(body.lines().map(str::to_owned));
        lines
    };
    match refusal {
        Refusal::Status(status, body) if status < 500 => Failed {
            fault: ObjectFault::Client,
            lines: words(format!("ClientError: {status}"), &body),
            why: None,
        },
        Refusal::Status(status, body) => Failed {
            fault: ObjectFault::Algorithm,
            lines: words(format!("Bad HTTP status received from algorithm: {status}"), &body),
            why: None,
        },
        Refusal::Silent(error) => Failed {
            fault: ObjectFault::Algorithm,
            lines: vec![format!("Unable to get response from algorithm: {error}")],
            why: None,
        },
        Refusal::Disk(error) => disk(error),
    }
}

fn unreadable(error: Unreadable) -> Failed {
    Failed {
        fault: ObjectFault::Client,
        lines: vec![error.to_string()],
        why: None,
    }
}

/// What a transfer's failure says to the caller; nothing where it is the engine's own.
fn said(error: &TransferError) -> Option<String> {
    match error {
        TransferError::Engine(_) | TransferError::Away(_) | TransferError::Cut => None,
        readable => Some(readable.to_string()),
    }
}

fn moved(error: TransferError) -> Failed {
    match said(&error) {
        Some(text) => Failed {
            fault: ObjectFault::Client,
            lines: vec![text.clone()],
            why: Some(format!("Data download failed:{text}")),
        },
        None => {
            tracing::error!(cause = driver::chain(&error), "a transfer of a transform job failed");
            Failed {
                fault: ObjectFault::Internal,
                lines: vec!["The engine could not move the data".into()],
                why: None,
            }
        }
    }
}

fn disk(error: io::Error) -> Failed {
    tracing::error!(%error, "data of a transform job could not be kept");
    Failed {
        fault: ObjectFault::Internal,
        lines: vec!["The engine could not keep the data".into()],
        why: None,
    }
}
