//! Pipe mode: a named pipe for each epoch of a channel, filled while the container reads it (CC-25..27).
//!
//! An instance has a thread for each such channel. It waits until the container opens the epoch's pipe, makes the next one,
//! sends the channel's entries, and goes on to the next pipe; a reader that closes early ends its epoch. Memory depends on
//! no object's size; a list that is shuffled has a limit. What the channel consists of is listed once, before the container starts: every epoch has the same entries.
//!
//! # Restarts
//!
//! The end of this process ends the files of those who read pipes, and to them it looks like the end of the data. So it is
//! noted that an epoch has begun before its first byte is written, and that it is over after the last one: a process that
//! finds one begun fails the job, whatever has become of its containers. Pipes that nobody had opened are served again.

mod send;

use crate::cut::{Cut, Cuts};
use crate::driver;
use crate::job::Site;
use crate::stage::{self, StageError};
use crate::transfer::{Actor, Transfer};
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::training_job::{Channel, Distribution, InputMode, JobSpec, PipeInput};
use isolarium_runtime::fifo::{self, Feed, Halt, Stop};
use send::{Entries, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Directories of the work directory: what is known of a channel, and where its pipes are.
const KNOWN: &str = "pipes";
const DATA: &str = "input/data";

/// Files of what is known of a channel: its entries, a line each, and the epoch.
const ENTRIES: &str = "entries";
const EPOCH: &str = "epoch";

/// Why containers cannot go on, or have read what was not whole.
#[derive(Debug)]
pub(crate) enum Starved {
    Stage(StageError),
    /// The text says what was cut off.
    Cut(String),
}

/// The epoch whose pipe is there, and whether it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    epoch: u64,
    open: bool,
}

impl Mark {
    fn read(known: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(known.join(EPOCH))?)?)
    }

    /// The machine's own end ends the container too, so nothing waits for the disk.
    fn write(self, known: &Path) -> io::Result<()> {
        let (path, fresh) = (known.join(EPOCH), known.join("epoch.new"));
        fs::write(&fresh, serde_json::to_vec(&self)?)?;
        fs::rename(&fresh, &path)
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Lists a channel's entries and makes its first pipe. What an interrupted attempt left is replaced.
pub(crate) fn stage(site: &Site<'_>, channel: &Channel, input: &PipeInput) -> Result<(), StageError> {
    let (deps, actor, workload) = (site.deps, &site.actor, &site.placement.workload);
    let known = deps.work.make_empty(workload, &format!("{KNOWN}/{}", channel.name))?;
    let entries = known.join(ENTRIES);
    match &input.attributes {
        Some(_) => {
            if !deps.transfer.link(actor, &channel.uri, &entries)? {
                let text = "An augmented manifest that lies encrypted, or comes through a VPC, cannot be used with VolumeKmsKeyId";
                return Err(StageError::unusable(text));
            }
            if File::open(&entries)?.read(&mut [0])? == 0 {
                let text = format!("The augmented manifest \"{}\" is empty", channel.uri);
                return Err(StageError::unusable(text));
            }
        }
        None => {
            let mut list = BufWriter::new(File::create_new(&entries)?);
            for (object, _) in stage::channel_objects(deps, actor, channel)? {
                serde_json::to_writer(&mut list, &object).map_err(io::Error::from)?;
                list.write_all(b"\n")?;
            }
            list.flush()?;
        }
    }
    let data = deps.work.make(workload, DATA)?;
    Mark { epoch: 0, open: false }.write(&known)?;
    Ok(fifo::make(&data.join(PipeInput::name(&channel.name, 0)))?)
}

/// The threads of a job. Dropping it ends them: nothing of them is left afterwards.
#[derive(Default)]
pub(crate) struct Pipes(BTreeMap<(usize, String), Running>);

impl Pipes {
    /// Lets every pipe that containers may open be served, and says what went wrong. `running`: some of the containers run.
    pub(crate) fn serve(&mut self, sites: &[Site<'_>], spec: &JobSpec, running: bool) -> Option<Starved> {
        for channel in &spec.channels {
            let InputMode::Pipe(input) = &channel.mode else {
                continue;
            };
            for site in sites {
                let Some(share) = spec.share(channel, site.number) else {
                    continue;
                };
                let served = match self.0.get(&(site.number, channel.name.clone())) {
                    Some(running) => running.fault().map_or(Ok(()), Err),
                    None => self.adopt((site, share), channel, input, running),
                };
                if let Err(fault) = served {
                    return Some(fault);
                }
            }
        }
        None
    }

    /// What this process has not served yet.
    fn adopt(
        &mut self,
        (site, share): (&Site<'_>, (usize, usize)),
        channel: &Channel,
        input: &PipeInput,
        running: bool,
    ) -> Result<(), Starved> {
        let disk = |error: io::Error| Starved::Stage(StageError::Disk(error));
        let place = Place::of(site, channel);
        let mark = Mark::read(&place.known).map_err(disk)?;
        if mark.open {
            return Err(Starved::Cut(format!(
                "The engine was restarted while epoch {} of the channel \"{}\" was read by {}: what it read is not whole",
                mark.epoch,
                channel.name,
                isolarium_model::sagemaker::training_job::host_name(site.number)
            )));
        }
        if running {
            let begun = Running::begin((site, share), channel, input, place, mark.epoch).map_err(disk)?;
            self.0.insert((site.number, channel.name.clone()), begun);
        }
        Ok(())
    }
}

/// Where the files of one channel of one instance lie.
struct Place {
    known: PathBuf,
    data: PathBuf,
    channel: String,
}

impl Place {
    fn of(site: &Site<'_>, channel: &Channel) -> Self {
        let work = site.deps.work.of(&site.placement.workload);
        Self {
            known: work.join(KNOWN).join(&channel.name),
            data: work.join(DATA),
            channel: channel.name.clone(),
        }
    }

    fn pipe(&self, epoch: u64) -> PathBuf {
        self.data.join(PipeInput::name(&self.channel, epoch))
    }
}

/// What a thread and the loop know of each other.
#[derive(Default)]
struct Shared {
    /// Why the thread has ended.
    fault: Mutex<Option<Fault>>,
    /// Ends the transfer that is under way.
    cut: Mutex<Arc<Cut>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread, seen from the loop.
struct Running {
    shared: Arc<Shared>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn begin(
        (site, share): (&Site<'_>, (usize, usize)),
        channel: &Channel,
        input: &PipeInput,
        place: Place,
        epoch: u64,
    ) -> io::Result<Self> {
        let deps = site.deps;
        let (feed, stop) = fifo::feed()?;
        let shared = Arc::new(Shared::default());
        let (number, of) = match channel.distribution {
            Distribution::FullyReplicated => (0, 1),
            Distribution::ShardedByS3Key => share,
        };
        let source = Source {
            transfer: Arc::clone(&deps.transfer),
            cuts: Arc::clone(&deps.cuts),
            actor: site.actor.clone(),
            manifest: input.attributes.is_some().then(|| channel.uri.clone()),
            input: input.clone(),
            seed: channel.shuffle_seed,
            number,
            of,
            limit: deps.settings.transfer_limit,
            retry: deps.settings.retry,
            shared: Arc::clone(&shared),
        };
        let thread = driver::beside("pipe", move || source.all(&feed, &place, epoch))?;
        Ok(Self {
            shared,
            stop,
            thread: Some(thread),
        })
    }

    fn fault(&self) -> Option<Starved> {
        let fault = locked(&self.shared.fault).take();
        let ended = || self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        match fault {
            Some(Fault::Stage(error)) => Some(Starved::Stage(error)),
            Some(Fault::Halt(Halt::Failed(error))) => Some(Starved::Stage(StageError::Disk(error))),
            Some(Fault::Halt(error @ (Halt::Closed | Halt::Stopped))) => {
                Some(Starved::Stage(StageError::Disk(io::Error::other(error))))
            }
            // It says why before it ends; this one panicked.
            None if ended() => Some(Starved::Stage(StageError::Disk(io::Error::other(
                "a thread that serves pipes has broken off",
            )))),
            None => None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let stopped = self.stop.make();
        locked(&self.shared.cut).make();
        if let Err(error) = stopped {
            tracing::error!(%error, "a thread that serves pipes could not be ended; too few file descriptors are allowed");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that serves pipes panicked");
        }
    }
}

/// What one thread sends.
struct Source {
    transfer: Arc<dyn Transfer>,
    cuts: Arc<Cuts>,
    actor: Actor,
    /// The augmented manifest that the entries are lines of.
    manifest: Option<S3Uri>,
    input: PipeInput,
    seed: Option<i64>,
    /// Of every so many entries one is this instance's.
    number: usize,
    of: usize,
    /// How long one object may be on its way.
    limit: Duration,
    /// Wait before a transfer is tried again that was not refused.
    retry: Duration,
    shared: Arc<Shared>,
}

impl Source {
    fn all(&self, feed: &Feed, place: &Place, first: u64) {
        let fault = match self.epochs(feed, place, first) {
            Err(fault) => fault,
            Ok(never) => match never {},
        };
        if !matches!(fault, Fault::Halt(Halt::Stopped)) {
            *locked(&self.shared.fault) = Some(fault);
        }
    }

    fn epochs(&self, feed: &Feed, place: &Place, first: u64) -> Result<std::convert::Infallible, Fault> {
        // Left by a process that ended between two epochs.
        if let Some(last) = first.checked_sub(1) {
            absent_is_fine(fs::remove_file(place.pipe(last)))?;
        }
        let mut epoch = first;
        loop {
            let path = place.pipe(epoch);
            fifo::make(&path)?;
            let mut end = feed.open(&path)?;
            let sent = self.epoch(feed, place, epoch, &mut end);
            match sent {
                // A reader that has enough closes.
                Ok(()) | Err(Fault::Halt(Halt::Closed)) => {}
                Err(fault) => {
                    if !matches!(fault, Fault::Halt(Halt::Stopped)) {
                        *locked(&self.shared.fault) = Some(fault);
                    }
                    // Not closed before the containers are gone: that would look like the end of the data.
                    loop {
                        feed.wait(None)?;
                    }
                }
            }
            epoch = epoch.saturating_add(1);
            Mark { epoch, open: false }.write(&place.known)?;
            absent_is_fine(fs::remove_file(&path))?;
            drop(end);
        }
    }

    fn epoch(&self, feed: &Feed, place: &Place, epoch: u64, end: &mut fifo::End<'_>) -> Result<(), Fault> {
        Mark { epoch, open: true }.write(&place.known)?;
        // There before this one ends, so that nobody has to wait for it to appear.
        fifo::make(&place.pipe(epoch.saturating_add(1)))?;
        let mut entries = Entries::open(&place.known.join(ENTRIES), feed)?;
        let mut sender = send::Sender::new(self, feed, end);
        entries.each(self.seed, epoch, self.number, self.of, &mut |at, line| {
            sender.entry(at, line)
        })
    }
}
