//! Values of the objective metric that training jobs tell while they run, for early stopping (SM-36). They are read from the
//! containers' output by the definition's pattern, besides what the training job's own loop reads.

use crate::deps::{Deps, StepError};
use isolarium_model::sagemaker::metric_pattern::MetricPattern;
use isolarium_model::sagemaker::training_job::TrainingJob;
use isolarium_model::sagemaker::tuning_job::{Curve, FinalStatus, TrialCurve, TrialEnd, TuningJob};
use isolarium_model::{Key, WorkloadId};
use isolarium_runtime::executor::ExecutorError;
use isolarium_tuning::{Hyperband, Verdict, is_worse_than_median};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// Bytes read at once, and pieces in one step.
const PIECE: usize = 256 << 10;
const PIECES: usize = 16;

/// One training job as far as it was read.
#[derive(Default)]
struct Followed {
    curve: Curve,
    /// How far each container's output was read.
    offsets: BTreeMap<WorkloadId, u64>,
}

/// Hyperband's plan, and the marks of its curves.
struct Plan {
    hyperband: Hyperband,
    marks: Vec<u32>,
}

impl Plan {
    fn of(job: &TuningJob) -> Option<Self> {
        let hyperband = Hyperband::new(job.hyperband?);
        let marks = hyperband.marks();
        Some(Self { hyperband, marks })
    }
}

/// Curves by training job.
#[derive(Default)]
pub(super) struct Curves {
    running: BTreeMap<String, Followed>,
    ended: BTreeMap<String, Curve>,
    plan: OnceCell<Option<Plan>>,
    patterns: BTreeMap<usize, Option<MetricPattern>>,
}

impl Curves {
    /// Reads what a training job told since the last time.
    pub fn follow(&mut self, deps: &Deps, job: &TuningJob, trial: usize, child: &TrainingJob) -> Result<(), StepError> {
        let Some(definition) = job.trials.get(trial).map(|trial| trial.definition) else {
            return Ok(());
        };
        let pattern = self.patterns.entry(definition).or_insert_with(|| {
            let definition = job.definitions.get(definition)?;
            let metrics = definition.spec.metrics.iter();
            let metric = metrics
                .into_iter()
                .find(|one| one.name == definition.objective.metric)?;
            MetricPattern::compile(&metric.regex)
        });
        let Some(pattern) = pattern else { return Ok(()) };
        let Some(goal) = job.definitions.get(definition).map(|one| one.objective.goal) else {
            return Ok(());
        };
        let plan = self.plan.get_or_init(|| Plan::of(job)).as_ref();
        let marks = plan.map_or(&[][..], |plan| plan.marks.as_slice());
        let followed = self.running.entry(child.name.clone()).or_default();
        for placement in child.run.placements() {
            let offset = followed.offsets.entry(placement.workload.clone()).or_insert(0);
            for _ in 0..PIECES {
                let chunk = match deps.executor.read_log(&placement.workload, *offset, PIECE) {
                    Ok(chunk) => chunk,
                    // Not started yet, or removed already.
                    Err(ExecutorError::Unknown) => break,
                    Err(error) => return Err(StepError::Executor(error)),
                };
                for value in chunk.lines.iter().filter_map(|line| pattern.value(&line.text)) {
                    followed.curve.push(goal.cost(value), marks);
                }
                let idle = chunk.next == *offset;
                *offset = chunk.next;
                if idle || chunk.complete {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The curves of training jobs that have just ended, to be kept; one that failed is compared with none.
    pub fn of_ended(
        &mut self,
        deps: &Deps,
        key: &Key,
        job: &TuningJob,
        ends: &BTreeMap<String, TrialEnd>,
    ) -> Result<Vec<(Key, TrialCurve)>, StepError> {
        let mut kept = Vec::new();
        for (at, trial) in job.trials.iter().enumerate() {
            let Some(end) = ends.get(&trial.job_name) else { continue };
            let child_key = TrainingJob::key(&key.scope, &trial.job_name);
            if let Some(child) = deps.store.get::<TrainingJob>(&child_key)?
                && job.owns(&child.record)
            {
                self.follow(deps, job, at, &child.record)?;
            }
            let mut curve = self.running.remove(&trial.job_name).unwrap_or_default().curve;
            // Its output may be gone already: its last value is in its record.
            let goal = job.definitions.get(trial.definition).map(|one| one.objective.goal);
            if let (0, Some(goal), Some(value)) = (curve.told(), goal, end.objective) {
                let plan = self.plan.get_or_init(|| Plan::of(job)).as_ref();
                curve.push(goal.cost(value), plan.map_or(&[][..], |plan| plan.marks.as_slice()));
            }
            if end.status == FinalStatus::Failed || curve.told() == 0 {
                continue;
            }
            self.ended.insert(trial.job_name.clone(), curve.clone());
            kept.push((
                TrialCurve::key(&key.scope, &trial.job_name),
                TrialCurve {
                    job_name: trial.job_name.clone(),
                    ended: deps.now(),
                    curve,
                },
            ));
        }
        Ok(kept)
    }

    /// Curves of ended training jobs that an earlier process kept.
    fn load(&mut self, deps: &Deps, key: &Key, job: &TuningJob) -> Result<(), StepError> {
        for trial in &job.trials {
            let useful = trial.end.as_ref().is_some_and(|end| end.status != FinalStatus::Failed);
            if useful && !self.ended.contains_key(&trial.job_name) {
                let curve = TrialCurve::key(&key.scope, &trial.job_name);
                let found = deps.store.get::<TrialCurve>(&curve)?;
                let curve = found.map(|stored| stored.record.curve).unwrap_or_default();
                self.ended.insert(trial.job_name.clone(), curve);
            }
        }
        Ok(())
    }

    /// The running training jobs that go on no longer.
    pub fn hopeless(&mut self, deps: &Deps, key: &Key, job: &TuningJob) -> Result<Vec<String>, StepError> {
        self.load(deps, key, job)?;
        let plan = self.plan.get_or_init(|| Plan::of(job)).as_ref();
        let nothing = Curve::default();
        let mut hopeless = Vec::new();
        for at in 0..job.definitions.len() {
            // Every trial of the definition, in the order in which they were started.
            let trials: Vec<Compared<'_>> = job
                .trials
                .iter()
                .filter(|trial| trial.definition == at)
                .map(|trial| {
                    let running = self.running.get(&trial.job_name).map(|followed| &followed.curve);
                    Compared {
                        name: &trial.job_name,
                        ended: trial.end.is_some(),
                        curve: running.or_else(|| self.ended.get(&trial.job_name)).unwrap_or(&nothing),
                    }
                })
                .collect();
            match plan {
                Some(plan) => hopeless.extend(by_hyperband(&plan.hyperband, &trials)),
                None => hopeless.extend(by_median(&trials)),
            }
        }
        Ok(hopeless)
    }
}

/// A trial beside the others of its definition.
struct Compared<'a> {
    name: &'a str,
    ended: bool,
    curve: &'a Curve,
}

fn by_hyperband(plan: &Hyperband, trials: &[Compared<'_>]) -> Vec<String> {
    let running = trials.iter().enumerate().filter(|(_, trial)| !trial.ended);
    running
        .filter_map(|(at, trial)| {
            let bracket = plan.bracket(at);
            let peers: Vec<&Curve> = trials
                .iter()
                .enumerate()
                .filter(|(other, _)| plan.bracket(*other) == bracket)
                .map(|(_, peer)| peer.curve)
                .collect();
            (plan.verdict(bracket, trial.curve, &peers) == Verdict::Stop).then(|| trial.name.to_owned())
        })
        .collect()
}

fn by_median(trials: &[Compared<'_>]) -> Vec<String> {
    let ended = trials.iter().filter(|trial| trial.ended && trial.curve.told() > 0);
    let earlier: Vec<&Curve> = ended.map(|trial| trial.curve).collect();
    let running = trials.iter().filter(|trial| !trial.ended);
    running
        .filter(|trial| is_worse_than_median(trial.curve, &earlier))
        .map(|trial| trial.name.to_owned())
        .collect()
}
