use super::super::{Attachment, BlockedDestination, FailureKind};
use super::*;

fn job() -> TrainingJob {
    let scope = Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    };
    let created = Timestamp(1_700_000_000_000);
    TrainingJob {
        name: "Churn".into(),
        arn: TrainingJob::arn(&scope, "Churn"),
        created,
        modified: created,
        secondary: SecondaryStatus::Starting,
        transitions: vec![TrainingJob::first_transition(created)],
        failure_reason: None,
        training_start: None,
        training_end: None,
        tuning_job: None,
        warm_pool: None,
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
        run: JobRun {
            placement: Placement {
                workload: "w-0123456789abcdef0".parse().unwrap(),
                attachment: Attachment::Isolated,
            },
            others: Vec::new(),
            image: None,
            stop: None,
            launched: false,
            restarts: 0,
            encrypted: false,
        },
        warning: None,
        final_metrics: BTreeMap::new(),
        tags: Tags::new(),
        echo: Echo::new(),
    }
}

const ALL: [SecondaryStatus; 12] = [
    SecondaryStatus::Starting,
    SecondaryStatus::Pending,
    SecondaryStatus::Restarting,
    SecondaryStatus::Downloading,
    SecondaryStatus::Training,
    SecondaryStatus::Uploading,
    SecondaryStatus::Stopping,
    SecondaryStatus::Completed,
    SecondaryStatus::Failed,
    SecondaryStatus::Stopped,
    SecondaryStatus::MaxRuntimeExceeded,
    SecondaryStatus::MaxWaitTimeExceeded,
];

const EVENTS: [JobEvent; 12] = [
    JobEvent::NoCapacity,
    JobEvent::InstanceLost,
    JobEvent::InstanceReady,
    JobEvent::ContainerRuns,
    JobEvent::ContainerSucceeded,
    JobEvent::Uploaded,
    JobEvent::StopRequested,
    JobEvent::StopFinished(StopCause::Asked),
    JobEvent::StopFinished(StopCause::MaxRuntime),
    JobEvent::StopFinished(StopCause::MaxPending),
    JobEvent::StopFinished(StopCause::MaxWait),
    JobEvent::Failed,
];

/// Proves: SM-28
#[test]
fn the_phases_follow_each_other_and_show_their_status() {
    let mut job = job();
    let mut at = job.created;
    let mut seen = vec![(job.status().as_str(), job.secondary.as_str())];
    for event in [
        JobEvent::InstanceReady,
        JobEvent::ContainerRuns,
        JobEvent::ContainerSucceeded,
        JobEvent::Uploaded,
    ] {
        at = Timestamp(at.0 + 1500);
        job.apply(event, at).unwrap();
        seen.push((job.status().as_str(), job.secondary.as_str()));
    }
    assert_eq!(
        seen,
        [
            ("InProgress", "Starting"),
            ("InProgress", "Downloading"),
            ("InProgress", "Training"),
            ("InProgress", "Uploading"),
            ("Completed", "Completed"),
        ]
    );
}

/// Proves: SM-28, SM-33
#[test]
fn what_has_ended_never_changes_and_every_running_phase_can_stop_and_fail() {
    for from in ALL {
        for event in EVENTS {
            let result = from.on(event);
            if from.status().is_final() {
                assert!(result.is_err(), "{from:?} {event:?}");
            } else if matches!(event, JobEvent::StopRequested | JobEvent::Failed) {
                assert!(result.is_ok(), "control: {from:?} {event:?}");
            }
        }
    }
    assert_eq!(
        SecondaryStatus::Stopping.on(JobEvent::StopFinished(StopCause::MaxRuntime)),
        Ok(SecondaryStatus::MaxRuntimeExceeded)
    );
    assert_eq!(SecondaryStatus::MaxRuntimeExceeded.status(), TrainingJobStatus::Stopped);
}

/// Proves: SM-29, SM-30
#[test]
fn transitions_are_append_only_and_times_follow_them() {
    let mut job = job();
    let t = |seconds: i64| Timestamp(1_700_000_000_000 + seconds * 1000);
    job.apply(JobEvent::InstanceReady, t(1)).unwrap();
    job.apply(JobEvent::ContainerRuns, t(2)).unwrap();
    let before = job.transitions.clone();
    job.apply(JobEvent::StopRequested, t(5)).unwrap();
    job.apply(JobEvent::StopRequested, t(6)).unwrap();
    assert_eq!(job.transitions.len(), 4, "a repeated stop adds nothing");
    for (old, new) in before.iter().zip(&job.transitions).take(2) {
        assert_eq!(old, new);
    }
    assert_eq!(job.transitions[2].ended, Some(t(5)));
    assert_eq!(job.transitions[3].ended, None);
    job.apply(JobEvent::StopFinished(StopCause::Asked), t(9)).unwrap();
    assert_eq!((job.training_start, job.training_end), (Some(t(1)), Some(t(9))));
    assert_eq!(job.training_seconds(), Some(8));
    assert_eq!(job.modified, t(9));
    assert!(job.transitions.iter().all(|transition| transition.ended.is_some()));
}

/// Proves: SM-31, CC-90
#[test]
fn artifacts_and_log_stream_are_named_by_the_job() {
    let job = job();
    assert_eq!(
        job.model_artifacts().to_string(),
        "s3://b/out/Churn/output/model.tar.gz"
    );
    assert_eq!(
        job.output_uri("output.tar.gz").to_string(),
        "s3://b/out/Churn/output/output.tar.gz"
    );
    assert_eq!(job.log_stream(0), "Churn/algo-1-1700000000");
    assert_eq!(
        job.arn.as_str(),
        "arn:aws:sagemaker:us-east-1:123456789012:training-job/churn"
    );
}

#[test]
fn a_record_survives_its_json_and_a_failure_is_kept() {
    let mut job = job();
    let attempt = BlockedDestination {
        first: job.created,
        last: job.created,
        count: 2,
        pid: 7,
        process: "curl".into(),
        protocol: "tcp".into(),
        address: "203.0.113.10".parse().unwrap(),
        port: 443,
        name: None,
    };
    job.fail(
        FailureReason::job(FailureKind::Client, "x", Some(&attempt.note())),
        Timestamp(9),
    )
    .unwrap();
    let text = serde_json::to_string(&job).unwrap();
    let back: TrainingJob = serde_json::from_str(&text).unwrap();
    assert_eq!(back, job);
    assert_eq!(back.facets().status, "Failed");
    assert!(
        back.failure_reason
            .unwrap()
            .as_str()
            .contains("blocked tcp 203.0.113.10:443 first")
    );
    assert!(
        job.fail(FailureReason::job(FailureKind::Client, "y", None), Timestamp(10))
            .is_err()
    );
}

/// Proves: SM-34
#[test]
fn a_lost_attempt_is_followed_by_another_as_often_as_was_asked_for() {
    let mut job = job();
    assert!(!job.may_restart(), "control: nobody asked for another attempt");
    job.spec.max_retries = 1;
    job.apply(JobEvent::InstanceReady, Timestamp(2000)).unwrap();
    job.apply(JobEvent::ContainerRuns, Timestamp(3000)).unwrap();
    assert!(job.may_restart());
    let again = JobRun::new(vec![job.run.placement.clone()]).unwrap();
    job.restart(again, "gone", Timestamp(4000)).unwrap();
    assert_eq!(
        (job.secondary.as_str(), job.status().as_str()),
        ("Restarting", "InProgress")
    );
    assert_eq!(
        job.transitions.last().unwrap().message,
        "Restarting the training job: gone"
    );
    assert!((job.run.restarts, job.may_restart()) == (1, false));
    job.apply(JobEvent::InstanceReady, Timestamp(5000)).unwrap();
    assert_eq!(
        job.training_start,
        Some(Timestamp(2000)),
        "the time limit is the whole job's"
    );
    job.spec.max_retries = 9;
    job.apply(JobEvent::StopRequested, Timestamp(6000)).unwrap();
    assert!(!job.may_restart(), "what was told to stop does not begin again");
}
