//! Values of the objective metric that training jobs tell while they run, for early stopping (SM-36). They are read from the
//! containers' output by the definition's pattern, besides what the training job's own loop reads.

use crate::deps::{Deps, StepError};
use crate::metrics::MetricPattern;
use isolarium_model::sagemaker::training_job::TrainingJob;
use isolarium_model::sagemaker::tuning_job::{FinalStatus, TrialCurve, TrialEnd, TuningJob};
use isolarium_model::{Key, WorkloadId};
use isolarium_runtime::executor::ExecutorError;
use isolarium_tuning::{Hyperband, RunningMeans, Verdict, is_worse_than_median};
use std::collections::BTreeMap;

/// Bytes read at once, and pieces in one step.
const PIECE: usize = 256 << 10;
const PIECES: usize = 16;

/// Values kept of one training job: Hyperband counts as many at most.
const MOST: usize = 20_000;

/// One training job as far as it was read.
#[derive(Default)]
struct Followed {
    values: Vec<f64>,
    /// How far each container's output was read.
    offsets: BTreeMap<WorkloadId, u64>,
}

/// Curves by training job.
#[derive(Default)]
pub(super) struct Curves {
    running: BTreeMap<String, Followed>,
    ended: BTreeMap<String, Vec<f64>>,
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
                let told = chunk.lines.iter().filter_map(|line| pattern.value(&line.text));
                followed.values.extend(told);
                let idle = chunk.next == *offset;
                *offset = chunk.next;
                if idle || chunk.complete {
                    break;
                }
            }
        }
        followed.values.truncate(MOST);
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
            let mut values = self.running.remove(&trial.job_name).unwrap_or_default().values;
            // Its output may be gone already: its last value is in its record.
            if values.is_empty() {
                values.extend(end.objective);
            }
            if end.status == FinalStatus::Failed || values.is_empty() {
                continue;
            }
            self.ended.insert(trial.job_name.clone(), values.clone());
            kept.push((
                TrialCurve::key(&key.scope, &trial.job_name),
                TrialCurve {
                    job_name: trial.job_name.clone(),
                    ended: deps.now(),
                    values,
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
                let values = found.map(|stored| stored.record.values).unwrap_or_default();
                self.ended.insert(trial.job_name.clone(), values);
            }
        }
        Ok(())
    }

    /// The running training jobs that go on no longer.
    pub fn hopeless(&mut self, deps: &Deps, key: &Key, job: &TuningJob) -> Result<Vec<String>, StepError> {
        self.load(deps, key, job)?;
        let plan = job.hyperband.map(Hyperband::new);
        let mut hopeless = Vec::new();
        for at in 0..job.definitions.len() {
            let goal = job.definitions.get(at).map(|one| one.objective.goal);
            let Some(goal) = goal else { continue };
            // Costs of every trial of the definition, in the order in which they were started.
            let trials: Vec<(&str, bool, Vec<f64>)> = job
                .trials
                .iter()
                .filter(|trial| trial.definition == at)
                .map(|trial| {
                    let running = self.running.get(&trial.job_name).map(|followed| &followed.values);
                    let values = running.or_else(|| self.ended.get(&trial.job_name));
                    let costs = values.into_iter().flatten().map(|value| goal.cost(*value));
                    (trial.job_name.as_str(), trial.end.is_some(), costs.collect())
                })
                .collect();
            match &plan {
                Some(plan) => hopeless.extend(by_hyperband(plan, &trials)),
                None => hopeless.extend(by_median(&trials)),
            }
        }
        Ok(hopeless)
    }
}

fn by_hyperband(plan: &Hyperband, trials: &[(&str, bool, Vec<f64>)]) -> Vec<String> {
    let brackets = trials.iter().enumerate();
    let running = brackets.filter(|(_, (_, ended, _))| !ended);
    running
        .filter_map(|(at, (name, _, costs))| {
            let bracket = plan.bracket(at);
            let peers: Vec<&[f64]> = trials
                .iter()
                .enumerate()
                .filter(|(other, _)| plan.bracket(*other) == bracket)
                .map(|(_, (_, _, costs))| costs.as_slice())
                .collect();
            (plan.verdict(bracket, costs, &peers) == Verdict::Stop).then(|| (*name).to_owned())
        })
        .collect()
}

fn by_median(trials: &[(&str, bool, Vec<f64>)]) -> Vec<String> {
    let ended = trials.iter().filter(|(_, ended, costs)| *ended && !costs.is_empty());
    let earlier: Vec<RunningMeans> = ended.map(|(_, _, costs)| RunningMeans::of(costs)).collect();
    let running = trials.iter().filter(|(_, ended, _)| !ended);
    running
        .filter(|(_, _, costs)| is_worse_than_median(costs, &earlier))
        .map(|(name, _, _)| (*name).to_owned())
        .collect()
}
