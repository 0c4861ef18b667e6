//! Warm start: what is learnt from earlier tuning jobs, read once when the new one is created.

use super::super::{find, shapes};
use super::missing;
use crate::Ctx;
use isolarium_model::sagemaker::TrainingJob;
use isolarium_model::sagemaker::tuning_job::{
    BestOfParents, Definition, EarlierTrial, TuningJob as Job, WarmStart, WarmStartKind,
};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

/// Trials of parents that are kept at most: the best ones of each.
const MOST: usize = 500;

/// What a configuration leads to. Parents must have ended, and have had the same objective and as many hyperparameters.
pub(super) fn warm_start(
    ctx: &Ctx<'_>,
    config: &shapes::HyperParameterTuningJobWarmStartConfig,
    definitions: &[Definition],
) -> Result<WarmStart, ApiError> {
    let kind = match config.warm_start_type {
        shapes::HyperParameterTuningJobWarmStartType::IdenticalDataAndAlgorithm => {
            WarmStartKind::IdenticalDataAndAlgorithm
        }
        shapes::HyperParameterTuningJobWarmStartType::TransferLearning => WarmStartKind::TransferLearning,
    };
    let [definition] = definitions else {
        return Err(ApiError::validation(
            "WarmStartConfig is only possible with one TrainingJobDefinition.",
        ));
    };
    let mut start = WarmStart {
        kind,
        trials: Vec::new(),
        best: None,
    };
    let mut seen = BTreeSet::new();
    for (at, parent) in config.parent_hyper_parameter_tuning_jobs.iter().enumerate() {
        let name = parent.hyper_parameter_tuning_job_name.as_deref().unwrap_or_default();
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(ApiError::validation(format!(
                "The parent hyperparameter tuning job {name} is specified twice."
            )));
        }
        let scope = &ctx.caller.scope;
        let found = find::<Job>(ctx, &Job::key(scope, name))?;
        let job = found.ok_or_else(|| missing(&Job::arn(scope, name)))?.record;
        fits(&job, definition, kind)?;
        learn(ctx, &mut start, at, &job);
    }
    Ok(start)
}

fn fits(parent: &Job, definition: &Definition, kind: WarmStartKind) -> Result<(), ApiError> {
    let name = &parent.name;
    if !parent.status.is_final() {
        return Err(ApiError::validation(format!(
            "The parent hyperparameter tuning job {name} has not ended: it is in status {}.",
            parent.status.as_str()
        )));
    }
    let parameters = |one: &Definition| one.ranges.len() + one.spec.hyperparameters.len();
    for theirs in &parent.definitions {
        if theirs.objective != definition.objective {
            return Err(ApiError::validation(format!(
                "The objective metric must be the same as that of the parent hyperparameter tuning job {name}."
            )));
        }
        if parameters(theirs) != parameters(definition) {
            return Err(ApiError::validation(format!(
                "The total number of static and tunable hyperparameters must be the same as in the parent hyperparameter \
                 tuning job {name}."
            )));
        }
        let same_data = theirs.spec.container.image == definition.spec.container.image
            && theirs.spec.channels == definition.spec.channels;
        if kind == WarmStartKind::IdenticalDataAndAlgorithm && !same_data {
            return Err(ApiError::validation(format!(
                "With IdenticalDataAndAlgorithm the training image and the input data must be those of the parent \
                 hyperparameter tuning job {name}."
            )));
        }
    }
    Ok(())
}

fn learn(ctx: &Ctx<'_>, start: &mut WarmStart, at: usize, parent: &Job) {
    let mut trials: Vec<EarlierTrial> = Vec::new();
    for trial in &parent.trials {
        let (Some(value), Some(definition)) = (trial.objective(), parent.definitions.get(trial.definition)) else {
            continue;
        };
        let mut values = definition.spec.hyperparameters.clone();
        values.extend(trial.values.clone());
        trials.push(EarlierTrial {
            parent: at,
            values,
            value,
        });
    }
    if let (Some(best), Some(definition)) = (parent.best(), parent.definitions.first()) {
        let goal = definition.objective.goal;
        trials.sort_by(|a, b| goal.cost(a.value).total_cmp(&goal.cost(b.value)));
        let known = start.best.as_ref().and_then(|known| known.trial.objective());
        let better = match (best.objective(), known) {
            (Some(value), Some(known)) => goal.is_better(value, known),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if better {
            start.best = Some(Box::new(BestOfParents {
                tuning_job: parent.name.clone(),
                definition: definition.name.clone(),
                objective: definition.objective.clone(),
                arn: TrainingJob::arn(&ctx.caller.scope, &best.job_name),
                trial: best.clone(),
            }));
        }
    }
    trials.truncate(MOST);
    start.trials.extend(trials);
    // What the parent itself had learnt is part of what it knows.
    if let Some(inherited) = &parent.warm_start
        && let (Some(theirs), WarmStartKind::IdenticalDataAndAlgorithm) = (&inherited.best, start.kind)
        && let Some(value) = theirs.trial.objective()
        && start
            .best
            .as_ref()
            .and_then(|known| known.trial.objective())
            .is_none_or(|known| theirs.objective.goal.is_better(value, known))
        && inherited.kind == WarmStartKind::IdenticalDataAndAlgorithm
    {
        start.best = Some(theirs.clone());
    }
}
