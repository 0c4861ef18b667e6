use super::super::training_job::{JobSpec, OutputCompression, OutputConfig};
use super::super::{ContainerSpec, FailureKind, JobNetwork};
use super::*;

fn job(goal: Goal, ends: &[(FinalStatus, Option<f64>)]) -> TuningJob {
    let scope = Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    };
    let created = Timestamp(1_700_000_000_000);
    let trials = ends.iter().enumerate().map(|(at, (status, objective))| Trial {
        job_name: format!("t-{at}"),
        definition: 0,
        values: Values::new(),
        created,
        end: Some(TrialEnd {
            status: *status,
            started: Some(created),
            ended: Some(Timestamp(created.0 + i64::try_from(at).unwrap())),
            objective: *objective,
            failure_reason: (*status == FinalStatus::Failed)
                .then(|| FailureReason::job(FailureKind::Algorithm, "no", None)),
        }),
    });
    TuningJob {
        name: "Churn".into(),
        arn: TuningJob::arn(&scope, "Churn"),
        created,
        modified: created,
        ended: None,
        status: TuningStatus::InProgress,
        failure_reason: None,
        strategy: Strategy::Random,
        hyperband: None,
        limits: ResourceLimits {
            jobs: 10,
            parallel: 2,
            runtime: None,
        },
        early_stopping: false,
        criteria: CompletionCriteria::default(),
        seed: 1,
        definitions: vec![Definition {
            name: None,
            objective: Objective {
                goal,
                metric: "loss".into(),
            },
            ranges: vec![],
            spec: JobSpec {
                container: ContainerSpec {
                    image: "i".into(),
                    environment: BTreeMap::new(),
                },
                entrypoint: None,
                arguments: None,
                hyperparameters: BTreeMap::new(),
                channels: vec![],
                output: OutputConfig {
                    uri: "s3://b/out".parse().unwrap(),
                    compression: OutputCompression::Gzip,
                    kms_key: None,
                },
                checkpoints: None,
                metrics: vec![],
                instance_type: "ml.m5.large".into(),
                instances: 1,
                groups: Vec::new(),
                role_arn: "arn:aws:iam::123456789012:role/r".parse().unwrap(),
                max_runtime: 60,
                max_pending: None,
                max_wait: None,
                max_retries: 0,
                volume: None,
                keep_alive: 0,
                network: JobNetwork::new(Some(true), None),
            },
            echo: Echo::new(),
        }],
        warm_start: None,
        trials: trials.collect(),
        enough: None,
        tags: Tags::new(),
        echo: Echo::new(),
    }
}

/// Proves: SM-37
#[test]
fn a_tuning_job_takes_only_the_steps_of_its_lifecycle() {
    use TuningEvent as E;
    use TuningStatus as S;
    let table = [
        (S::InProgress, E::StopRequested, Some(S::Stopping)),
        (S::InProgress, E::Finished, Some(S::Completed)),
        (S::InProgress, E::Failed, Some(S::Failed)),
        (S::Stopping, E::StopRequested, Some(S::Stopping)),
        (S::Stopping, E::Finished, Some(S::Stopped)),
        (S::Stopping, E::Failed, Some(S::Stopped)),
        (S::Completed, E::StopRequested, None),
        (S::Failed, E::Finished, None),
        (S::Stopped, E::StopRequested, None),
    ];
    for (from, event, to) in table {
        assert_eq!(from.on(event).ok(), to, "{from:?} {event:?}");
    }
}

/// Proves: SM-35
#[test]
fn the_best_trial_is_the_best_finished_objective_by_its_goal() {
    use FinalStatus::{Completed, Failed, Stopped};
    let ends = [
        (Completed, Some(3.0)),
        (Failed, None),
        (Stopped, Some(1.0)),
        (Completed, Some(5.0)),
        (Completed, Some(1.0)),
    ];
    let name = |goal| job(goal, &ends).best().map(|trial| trial.job_name.clone());
    assert_eq!(
        name(Goal::Minimize).as_deref(),
        Some("t-2"),
        "the earlier of two equal ones"
    );
    assert_eq!(name(Goal::Maximize).as_deref(), Some("t-3"));
    assert!(job(Goal::Maximize, &[(Completed, None)]).best().is_none());
    let counts = job(Goal::Minimize, &ends).counts();
    assert_eq!(
        (counts.completed, counts.stopped, counts.failed, counts.retryable),
        (3, 1, 1, 0)
    );
    assert_eq!((counts.objective_succeeded, counts.objective_failed), (4, 1));
}

/// Proves: SM-35
#[test]
fn trials_that_improve_less_than_one_percent_do_not_improve() {
    use FinalStatus::{Completed, Failed};
    let ends = |values: &[f64]| values.iter().map(|value| (Completed, Some(*value))).collect::<Vec<_>>();
    assert_eq!(job(Goal::Minimize, &ends(&[10.0, 9.95, 9.93])).not_improving(), 2);
    assert_eq!(job(Goal::Minimize, &ends(&[10.0, 9.95, 9.8])).not_improving(), 0);
    assert_eq!(job(Goal::Maximize, &ends(&[10.0, 9.0, 10.05])).not_improving(), 2);
    assert_eq!(
        job(Goal::Maximize, &[(Failed, None), (Failed, None)]).not_improving(),
        0
    );
    assert_eq!(
        job(Goal::Maximize, &[(Completed, Some(1.0)), (Failed, None)]).not_improving(),
        1
    );
}

/// Proves: SM-9
#[test]
fn children_are_named_after_the_tuning_job() {
    let mut one = job(Goal::Minimize, &[(FinalStatus::Completed, None)]);
    assert_eq!(one.next_job_name("0123abcd"), "Churn-002-0123abcd");
    one.name = "n".repeat(32);
    assert!(one.next_job_name("0123abcd").len() <= 63);
    assert!(one.arn.to_string().ends_with("hyper-parameter-tuning-job/churn"));
}
