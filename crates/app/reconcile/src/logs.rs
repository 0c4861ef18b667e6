//! Container output into log streams, exactly once, and the isolation report beside it (CC-90..92, NI-24).

use crate::deps::{Deps, StepError};
use crate::metrics::MetricScanner;
use crate::notebook::Hook;
use crate::transfer::{Actor, LogPiece, TransferError};
use isolarium_model::metrics::{MetricKey, Sample, StatisticSet};
use isolarium_model::sagemaker::training_job::MetricValue;
use isolarium_model::sagemaker::{BlockedDestination, Placement};
use isolarium_model::{Timestamp, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, LogLine};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// Pieces read in one step, so that a container that never stops writing cannot hold a worker for ever.
const PIECES_PER_STEP: usize = 64;

/// How long a role that may not write logs is left alone.
const DENIED_PAUSE: Duration = Duration::from_secs(5);

/// How far one container's output was read. After a restart of the engine it begins at 0 again: the stream keeps what
/// it has, and metrics see every line again.
#[derive(Debug, Default)]
pub(crate) struct LogCursor {
    offset: u64,
    /// How far the stream has the output; asked once.
    stored: Option<u64>,
    complete: bool,
    last_read: Option<Timestamp>,
    /// Attempts already written to the report's stream; asked once.
    reported: Option<u64>,
    /// The role may not write logs, and is not asked again before this time. The workload goes on; what it wrote is
    /// read again once the role may, and lost if it ends before (CC-91, IAM-26).
    denied_until: Option<Timestamp>,
}

impl LogCursor {
    /// Whether output was read less than the log interval ago.
    pub(crate) fn is_fresh(&self, deps: &Deps) -> bool {
        self.last_read
            .is_some_and(|last| deps.now().since(last) < deps.settings.log_interval)
    }
}

/// Where one container's output goes.
pub(crate) struct Sink<'a> {
    /// The job whose metrics are in the output; `None` where there are none.
    pub job: Option<&'a str>,
    pub actor: &'a Actor,
    pub group: &'a str,
    pub stream: &'a str,
}

/// What a read left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// The container has ended and its last line is stored.
    Complete,
    /// There may be more now.
    More,
    /// Everything that is there was read; the container may write more.
    Idle,
}

/// Moves output to the stream.
pub(crate) fn pump(
    deps: &Deps,
    sink: &Sink<'_>,
    workload: &WorkloadId,
    cursor: &mut LogCursor,
    mut metrics: Option<&mut MetricScanner>,
) -> Result<Drained, StepError> {
    cursor.last_read = Some(deps.now());
    let source = workload.as_str();
    for _ in 0..PIECES_PER_STEP {
        if cursor.complete {
            return Ok(Drained::Complete);
        }
        let stored = match cursor.stored {
            Some(stored) => stored,
            // An empty piece makes the stream and tells how far it has the output.
            None => append(
                deps,
                sink,
                &mut cursor.denied_until,
                &LogPiece {
                    source,
                    from: 0,
                    next: 0,
                    lines: &[],
                },
            )?,
        };
        let chunk = match deps.executor.read_log(workload, cursor.offset, PIECE) {
            Ok(chunk) => chunk,
            // Nothing was ever started, or it was removed: there is nothing to read any more.
            Err(ExecutorError::Unknown) => {
                cursor.complete = true;
                return Ok(Drained::Complete);
            }
            Err(error) => return Err(StepError::Executor(error)),
        };
        if let Some(metrics) = metrics.as_deref_mut() {
            metrics.take_fresh();
            for line in &chunk.lines {
                metrics.line(line.time, &line.text);
            }
        }
        let idle = chunk.lines.is_empty() && chunk.next == cursor.offset;
        let next = if cursor.offset < stored {
            // The stream has this from an earlier process. A piece that reaches beyond is read again from there; that
            // metrics see some lines twice changes no last value.
            cursor.stored = Some(stored);
            chunk.next.min(stored)
        } else {
            let piece = LogPiece {
                source,
                from: cursor.offset,
                next: chunk.next,
                lines: &chunk.lines,
            };
            // A role that was refused is asked again also when the container has nothing new to say.
            let owed = cursor.denied_until.is_some();
            let next = if idle && !owed {
                chunk.next
            } else {
                append(deps, sink, &mut cursor.denied_until, &piece)?
            };
            cursor.stored = Some(next);
            // Put where the stream took this piece, so that no value counts twice; a crash between the two loses some.
            if let Some(metrics) = metrics.as_deref_mut()
                && cursor.denied_until.is_none()
                && next == chunk.next
            {
                put_metrics(deps, sink, metrics.take_fresh());
            }
            next
        };
        cursor.complete = chunk.complete && next == chunk.next;
        cursor.offset = next;
        if idle && !chunk.complete {
            return Ok(Drained::Idle);
        }
    }
    Ok(if cursor.complete {
        Drained::Complete
    } else {
        Drained::More
    })
}

/// Where CloudWatch has the metrics of training jobs, and the dimension that names the job.
const NAMESPACE: &str = "/aws/sagemaker/TrainingJobs";
const JOB: &str = "TrainingJobName";

/// Puts values that were found in the output into the job's metrics. They are no reason to fail a job.
fn put_metrics(deps: &Deps, sink: &Sink<'_>, fresh: Vec<(String, MetricValue)>) {
    let (Some(job), false) = (sink.job, fresh.is_empty()) else {
        return;
    };
    let samples = fresh.into_iter().map(|(name, found)| Sample {
        key: MetricKey::of(NAMESPACE, &name, &[(JOB, job)]),
        at: found.time,
        unit: "None".into(),
        fine: false,
        statistics: StatisticSet::of(found.value, 1.0),
    });
    if let Err(refused) = deps.transfer.put_metrics(sink.actor, NAMESPACE, samples.collect()) {
        tracing::warn!(job, %refused, "metrics cannot be put");
    }
}

/// The offset from which the source is to be read next. A role that may not write is passed over for a while (CC-91);
/// the first write that it may make tells how far the stream really is, and reading goes back to there.
fn append(
    deps: &Deps,
    sink: &Sink<'_>,
    denied_until: &mut Option<Timestamp>,
    piece: &LogPiece<'_>,
) -> Result<u64, StepError> {
    if denied_until.is_some_and(|until| deps.now() < until) {
        return Ok(piece.next);
    }
    match deps.transfer.append_log(sink.actor, sink.group, sink.stream, piece) {
        Ok(next) => {
            *denied_until = None;
            Ok(next)
        }
        Err(TransferError::Engine(source)) => Err(StepError::Executor(ExecutorError::Host(source.to_string()))),
        Err(refused) => {
            tracing::warn!(group = sink.group, stream = sink.stream, %refused, "log lines cannot be written");
            *denied_until = Some(deps.now().after(DENIED_PAUSE));
            Ok(piece.next)
        }
    }
}

/// Writes attempts to leave that are new since the last call to `<stream>/network-isolation`, one JSON line each.
pub(crate) fn report(
    deps: &Deps,
    sink: &Sink<'_>,
    placement: &Placement,
    cursor: &mut LogCursor,
) -> Result<Vec<BlockedDestination>, StepError> {
    let attempts = deps.attempts(placement);
    let known = u64::try_from(attempts.len()).unwrap_or(u64::MAX);
    if attempts.is_empty() || cursor.reported.is_some_and(|reported| reported >= known) {
        return Ok(attempts);
    }
    let stream = format!("{}/network-isolation", sink.stream);
    let sink = Sink {
        job: None,
        actor: sink.actor,
        group: sink.group,
        stream: &stream,
    };
    let source = report_source(&placement.workload);
    let empty = LogPiece {
        source: &source,
        from: 0,
        next: 0,
        lines: &[],
    };
    let from = match cursor.reported {
        Some(reported) => reported,
        None => append(deps, &sink, &mut cursor.denied_until, &empty)?,
    };
    if cursor.denied_until.is_some() {
        return Ok(attempts);
    }
    let skip = usize::try_from(from).unwrap_or(usize::MAX);
    let lines: Vec<LogLine> = attempts
        .iter()
        .skip(skip)
        .map(|attempt| line(attempt, deps.now()))
        .collect();
    if from < known {
        let piece = LogPiece {
            source: &source,
            from,
            next: known,
            lines: &lines,
        };
        let reported = append(deps, &sink, &mut cursor.denied_until, &piece)?;
        cursor.reported = cursor.denied_until.is_none().then_some(reported);
    } else {
        cursor.reported = Some(from);
    }
    Ok(attempts)
}

/// Forgets the positions of workloads that `held` does not name: left-overs of a kill between a workload's removal and
/// [`forget`]. `sources` were listed before the records that `held` goes by.
pub(crate) fn sweep(deps: &Deps, sources: &[String], held: &dyn Fn(&WorkloadId) -> bool) {
    let workloads = sources
        .iter()
        .filter_map(|source| source.split('/').next()?.parse().ok());
    for workload in workloads.collect::<BTreeSet<WorkloadId>>() {
        if !held(&workload) {
            forget(deps, &workload);
        }
    }
}

/// The source of what the platform says of a transform job's data.
pub(crate) fn data_source(workload: &WorkloadId) -> String {
    format!("{workload}/data-log")
}

/// Writes lines of the platform's own behind those that a source has already; `said` counts them. Lines that the role may not
/// write are lost (CC-91).
pub(crate) fn say(deps: &Deps, sink: &Sink<'_>, source: &str, said: &mut Option<u64>, lines: &[LogLine]) {
    let append = |from: u64, lines: &[LogLine]| {
        let next = from.saturating_add(u64::try_from(lines.len()).unwrap_or(0));
        let piece = LogPiece {
            source,
            from,
            next,
            lines,
        };
        deps.transfer.append_log(sink.actor, sink.group, sink.stream, &piece)
    };
    let from = match *said {
        Some(said) => Ok(said),
        // After a restart of the engine the stream has some already.
        None => append(0, &[]),
    };
    match from.and_then(|from| append(from, lines)) {
        Ok(next) => *said = Some(next),
        Err(error) => tracing::warn!(group = sink.group, stream = sink.stream, %error, "log lines cannot be written"),
    }
}

/// The source of what a lifecycle script of a notebook instance wrote.
pub(crate) fn hook_source(workload: &WorkloadId, hook: Hook) -> String {
    format!("{workload}/{}", hook.file())
}

fn report_source(workload: &WorkloadId) -> String {
    format!("{workload}/network-isolation")
}

/// Forgets how far a workload's output was read, once nobody will read it again.
pub(crate) fn forget(deps: &Deps, workload: &WorkloadId) {
    let hooks = Hook::ALL.map(|hook| hook_source(workload, hook));
    let own = [workload.to_string(), report_source(workload), data_source(workload)];
    for source in own.into_iter().chain(hooks) {
        if let Err(error) = deps.transfer.forget_log(&source) {
            tracing::warn!(source, %error, "a log position could not be forgotten");
        }
    }
}

fn line(attempt: &BlockedDestination, now: Timestamp) -> LogLine {
    let mut text = json!({
        "blocked": attempt.protocol,
        "address": attempt.address,
        "port": attempt.port,
        "process": attempt.process,
        "pid": attempt.pid,
        "count": attempt.count,
        "first": attempt.first.as_seconds(),
    });
    if let (Some(name), Some(members)) = (&attempt.name, text.as_object_mut()) {
        members.insert("name".into(), json!(name));
    }
    LogLine {
        time: now,
        text: text.to_string(),
    }
}
