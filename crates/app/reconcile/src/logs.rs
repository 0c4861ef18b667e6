//! Container output into log streams, exactly once, and the isolation report beside it (CC-90..92, NI-24).

use crate::deps::{Deps, StepError};
use crate::metrics::MetricScanner;
use crate::transfer::{Actor, LogPiece, TransferError};
use isolarium_model::sagemaker::{BlockedDestination, Placement};
use isolarium_model::{Timestamp, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, LogLine};
use serde_json::json;

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// Pieces read in one step, so that a container that never stops writing cannot hold a worker for ever.
const PIECES_PER_STEP: usize = 64;

/// How far one container's output was read. It starts at 0 after a restart of the engine: the stream skips what it
/// has, and metrics see every line again.
#[derive(Debug, Default)]
pub(crate) struct LogCursor {
    offset: u64,
    complete: bool,
    last_read: Option<Timestamp>,
    /// Attempts already written to the report's stream.
    reported: usize,
    /// The role may not write logs: lines are lost, the workload goes on (CC-91).
    denied: bool,
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
    for _ in 0..PIECES_PER_STEP {
        if cursor.complete {
            return Ok(Drained::Complete);
        }
        let chunk = match deps.executor.read_log(workload, cursor.offset, PIECE) {
            Ok(chunk) => chunk,
            // Nothing was ever started, or it was removed: there is nothing to read any more.
            Err(ExecutorError::Unknown) => {
                cursor.complete = true;
                return Ok(Drained::Complete);
            }
            Err(error) => return Err(StepError::Executor(error)),
        };
        let idle = chunk.lines.is_empty() && chunk.next == cursor.offset;
        append(
            deps,
            sink,
            cursor,
            LogPiece {
                from: cursor.offset,
                next: chunk.next,
                lines: &chunk.lines,
            },
        )?;
        if let Some(metrics) = metrics.as_deref_mut() {
            for line in &chunk.lines {
                metrics.line(line.time, &line.text);
            }
        }
        cursor.offset = chunk.next;
        cursor.complete = chunk.complete;
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

fn append(deps: &Deps, sink: &Sink<'_>, cursor: &mut LogCursor, piece: LogPiece<'_>) -> Result<(), StepError> {
    if piece.lines.is_empty() || cursor.denied {
        return Ok(());
    }
    match deps.transfer.append_log(sink.actor, sink.group, sink.stream, &piece) {
        Ok(()) => Ok(()),
        Err(TransferError::Engine(source)) => Err(StepError::Executor(ExecutorError::Host(source.to_string()))),
        Err(refused) => {
            tracing::warn!(group = sink.group, stream = sink.stream, %refused, "log lines are lost");
            cursor.denied = true;
            Ok(())
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
    let stream = format!("{}/network-isolation", sink.stream);
    let lines: Vec<LogLine> = attempts
        .iter()
        .skip(cursor.reported)
        .map(|attempt| line(attempt, deps.now()))
        .collect();
    let (from, next) = (cursor.reported, attempts.len().max(cursor.reported));
    let offset = |at: usize| u64::try_from(at).unwrap_or(u64::MAX);
    let sink = Sink {
        actor: sink.actor,
        group: sink.group,
        stream: &stream,
    };
    append(
        deps,
        &sink,
        cursor,
        LogPiece {
            from: offset(from),
            next: offset(next),
            lines: &lines,
        },
    )?;
    cursor.reported = next;
    Ok(attempts)
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
