use super::*;
use crate::fake::{IMAGE, World, key, scope};
use crate::job::{self, JobMemory};
use isolarium_model::WorkloadId;
use isolarium_model::sagemaker::training_job::{
    CheckpointConfig, JobSpec, MetricDefinition, OutputCompression, OutputConfig, TrainingJobStatus,
};
use isolarium_model::sagemaker::tuning_job::{
    CompletionCriteria, Definition, Domain, EarlierTrial, Goal, HyperbandResources, Objective, ParameterRange,
    ResourceLimits, Scaling, Strategy, TrialCurve, Values, WarmStart, WarmStartKind,
};
use isolarium_model::sagemaker::{ContainerSpec, Echo, JobNetwork, Tags};
use isolarium_store::{Batch, StoreError};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const NAME: &str = "tune";

/// One tuning job and its training jobs in a fake world, stepped by hand.
struct Lab {
    world: Arc<World>,
    deps: Deps,
    memory: TuningMemory,
    jobs: HashMap<String, JobMemory>,
}

fn definition() -> Definition {
    Definition {
        name: None,
        objective: Objective {
            goal: Goal::Minimize,
            metric: "loss".into(),
        },
        ranges: vec![ParameterRange {
            name: "x".into(),
            domain: Domain::Continuous {
                min: 0.0,
                max: 1.0,
                scaling: Scaling::Linear,
            },
        }],
        spec: JobSpec {
            container: ContainerSpec {
                image: IMAGE.into(),
                environment: BTreeMap::new(),
            },
            entrypoint: None,
            arguments: None,
            hyperparameters: BTreeMap::from([("fixed".into(), "7".into())]),
            channels: vec![],
            output: OutputConfig {
                uri: "s3://out/jobs".parse().unwrap(),
                compression: OutputCompression::Gzip,
                kms_key: None,
            },
            checkpoints: Some(CheckpointConfig {
                uri: "s3://out/checkpoints".parse().unwrap(),
                local_path: "/opt/ml/checkpoints".into(),
            }),
            metrics: vec![MetricDefinition {
                name: "loss".into(),
                regex: "loss=(.*?);".into(),
            }],
            instance_type: "ml.m5.large".into(),
            instances: 1,
            groups: Vec::new(),
            role_arn: "arn:aws:iam::123456789012:role/exec".parse().unwrap(),
            max_runtime: 3600,
            max_pending: None,
            max_wait: None,
            max_retries: 0,
            volume: None,
            keep_alive: 0,
            network: JobNetwork::new(Some(true), None),
        },
        echo: json!({"CheckpointConfig": {"S3Uri": "s3://out/checkpoints"}})
            .as_object()
            .unwrap()
            .clone(),
    }
}

impl Lab {
    fn new(jobs: u32, parallel: u32, edit: impl FnOnce(&mut TuningJob)) -> Self {
        let world = World::new();
        let created = world.now();
        let mut job = TuningJob {
            name: NAME.into(),
            arn: TuningJob::arn(&scope(), NAME),
            created,
            modified: created,
            ended: None,
            status: TuningStatus::InProgress,
            failure_reason: None,
            strategy: Strategy::Random,
            hyperband: None,
            limits: ResourceLimits {
                jobs,
                parallel,
                runtime: None,
            },
            early_stopping: false,
            criteria: CompletionCriteria::default(),
            seed: 5,
            definitions: vec![definition()],
            warm_start: None,
            trials: vec![],
            enough: None,
            tags: Tags::from([("team".into(), "ml".into())]),
            echo: Echo::new(),
        };
        edit(&mut job);
        let batch = Batch::default().put(&key(NAME), Expect::Absent, &job).unwrap();
        world.state().commit(batch).unwrap();
        let deps = world.deps();
        Self {
            world,
            deps,
            memory: TuningMemory::default(),
            jobs: HashMap::new(),
        }
    }

    fn job(&self) -> TuningJob {
        self.world.state().get::<TuningJob>(&key(NAME)).unwrap().unwrap().record
    }

    fn children(&self) -> Vec<TrainingJob> {
        let all = self.world.state().all::<TrainingJob>().unwrap();
        let mut all: Vec<TrainingJob> = all.into_iter().map(|stored| stored.record).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn running(&self) -> Vec<TrainingJob> {
        let children = self.children().into_iter();
        children.filter(|child| !child.status().is_final()).collect()
    }

    /// Steps the tuning job once, and every training job that has not ended.
    fn round(&mut self) -> Result<(), StepError> {
        self.world.look(&self.deps);
        step(&self.deps, &key(NAME), &mut self.memory)?;
        for child in self.running() {
            let memory = self.jobs.entry(child.name.clone()).or_default();
            self.world.look(&self.deps);
            job::step(&self.deps, &TrainingJob::key(&scope(), &child.name), memory)?;
        }
        Ok(())
    }

    /// Steps until nothing more happens by itself.
    fn run(&mut self) -> TuningJob {
        for _ in 0..200 {
            let before = (self.job(), self.children(), self.world.changes());
            self.round().unwrap();
            self.world.clock.advance(Duration::from_millis(150));
            if (self.job(), self.children(), self.world.changes()) == before {
                return self.job();
            }
        }
        panic!("the tuning job never waits");
    }

    /// Ends a container after it printed a value.
    fn end(&self, child: &TrainingJob, loss: Option<f64>, code: i32) {
        let workload = &child.run.placement.workload;
        if let Some(loss) = loss {
            self.world.print(workload, &format!("loss={loss};"));
        }
        self.world.exit(workload, code);
    }

    fn value(child: &TrainingJob) -> f64 {
        child.spec.hyperparameters["x"].parse().unwrap()
    }

    /// A new process: nothing is remembered.
    fn restart(&mut self) {
        self.deps = self.world.deps();
        self.memory = TuningMemory::default();
        self.jobs.clear();
        self.world.look(&self.deps);
    }

    /// Runs to the end; every container tells its x as loss.
    fn finish(&mut self) -> TuningJob {
        for _ in 0..100 {
            let job = self.run();
            if job.status.is_final() {
                return job;
            }
            for child in self.running() {
                self.end(&child, Some(Self::value(&child)), 0);
            }
        }
        panic!("the tuning job never ends");
    }

    fn stop(&self) {
        let now = self.world.now();
        self.deps
            .update::<TuningJob>(&key(NAME), |job, batch| {
                job.apply(TuningEvent::StopRequested, now)?;
                Ok(Some(batch))
            })
            .unwrap();
    }
}

/// Proves: SM-35, SM-38, SM-9, CC-17
#[test]
fn training_jobs_are_started_up_to_the_limits_and_are_their_definitions() {
    let mut lab = Lab::new(5, 2, |_| {});
    lab.run();
    let first = lab.running();
    assert_eq!(first.len(), 2, "as many as may run at once");
    for child in &first {
        assert!(child.name.starts_with("tune-00") && child.name.len() == "tune-001-01234567".len());
        assert_eq!(child.tuning_job.as_ref(), Some(&lab.job().arn));
        assert_eq!(child.tags["team"], "ml");
        assert_eq!(child.spec.hyperparameters["fixed"], "7");
        assert_eq!(child.spec.hyperparameters["_tuning_objective_metric"], "loss");
        assert!((0.0..=1.0).contains(&Lab::value(child)));
        assert!(child.spec.network.isolated() && child.run.placement.isolated());
        let own = format!("s3://out/checkpoints/{}", child.name);
        assert_eq!(child.spec.checkpoints.as_ref().unwrap().uri.to_string(), own);
        assert_eq!(child.echo["CheckpointConfig"]["S3Uri"], json!(own));
        assert_eq!(child.echo["HyperParameters"], json!(child.spec.hyperparameters));
    }
    lab.end(&first[0], Some(0.25), 0);
    let job = lab.run();
    assert_eq!(lab.running().len(), 2, "the next one takes the place of the first");
    let counts = job.counts();
    assert_eq!(
        (counts.completed, counts.in_progress, counts.objective_succeeded),
        (1, 2, 1)
    );
    let job = lab.finish();
    assert_eq!(job.status, TuningStatus::Completed);
    assert!(job.ended.is_some());
    assert_eq!(lab.children().len(), 5);
    let best = lab.children().iter().skip(1).map(Lab::value).fold(0.25, f64::min);
    assert_eq!(job.best().unwrap().objective(), Some(best));
}

/// Proves: SM-35
#[test]
fn one_seed_gives_the_same_training_jobs() {
    let values = |seed: u64| {
        let mut lab = Lab::new(4, 3, |job| job.seed = seed);
        lab.finish();
        lab.job()
            .trials
            .iter()
            .map(|trial| trial.values.clone())
            .collect::<Vec<Values>>()
    };
    assert_eq!(values(1), values(1));
    assert_ne!(values(1), values(2));
}

/// Proves: SM-35
#[test]
fn a_grid_is_tried_whole_and_definitions_take_turns() {
    let mut lab = Lab::new(5, 2, |job| {
        job.strategy = Strategy::Grid;
        let categories = |values: &[&str]| {
            vec![ParameterRange {
                name: "x".into(),
                domain: Domain::Categorical {
                    values: values.iter().map(ToString::to_string).collect(),
                },
            }]
        };
        job.definitions[0].ranges = categories(&["1", "2", "3"]);
        let mut other = definition();
        other.ranges = categories(&["8", "9"]);
        other.name = Some("other".into());
        job.definitions.push(other);
    });
    let job = lab.finish();
    assert_eq!(job.status, TuningStatus::Completed);
    let tried: BTreeSet<(usize, String)> = job
        .trials
        .iter()
        .map(|trial| (trial.definition, trial.values["x"].clone()))
        .collect();
    assert_eq!(tried.len(), 5);
    assert_eq!(
        job.trials.iter().map(|trial| trial.definition).collect::<Vec<_>>(),
        [0, 1, 0, 1, 0]
    );
    assert_eq!(job.best().unwrap().values["x"], "1");
}

/// Proves: SM-37
#[test]
fn stopping_a_tuning_job_stops_its_training_jobs_and_starts_no_more() {
    let mut lab = Lab::new(9, 2, |_| {});
    lab.run();
    for child in lab.running() {
        lab.world
            .with(&child.run.placement.workload, |fake| fake.on_term = Some(0));
    }
    lab.stop();
    let job = lab.run();
    assert_eq!(job.status, TuningStatus::Stopped);
    assert_eq!(job.trials.len(), 2);
    assert!(
        lab.children()
            .iter()
            .all(|child| child.status() == TrainingJobStatus::Stopped)
    );
    assert_eq!(job.counts().stopped, 2);
}

/// Proves: SM-37
#[test]
fn a_tuning_job_without_any_objective_fails_and_says_why() {
    let mut lab = Lab::new(9, 1, |_| {});
    for _ in 0..5 {
        lab.run();
        let child = &lab.running()[0];
        lab.end(child, None, 0);
    }
    let job = lab.run();
    assert_eq!(job.status, TuningStatus::Failed);
    assert_eq!(job.trials.len(), 5, "no more than five are tried in vain");
    let reason = job.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("ClientError: No objective metrics found after running 5 training jobs."),
        "{reason}"
    );
    let mut lab = Lab::new(2, 2, |_| {});
    lab.run();
    for child in lab.running() {
        lab.end(&child, None, 1);
    }
    let job = lab.run();
    assert_eq!(job.status, TuningStatus::Failed);
    assert!(
        job.failure_reason
            .as_ref()
            .unwrap()
            .as_str()
            .contains("All training jobs failed.")
    );
    assert_eq!(job.counts().failed, 2);
    let mut control = Lab::new(2, 2, |_| {});
    control.run();
    let children = control.running();
    control.end(&children[0], None, 1);
    control.end(&children[1], Some(1.0), 0);
    assert_eq!(control.run().status, TuningStatus::Completed, "one value is enough");
}

/// Proves: SM-35
#[test]
fn a_tuning_job_ends_when_its_criteria_are_met() {
    let mut lab = Lab::new(50, 2, |job| job.criteria.target = Some(0.5));
    lab.run();
    let children = lab.running();
    lab.world
        .with(&children[1].run.placement.workload, |fake| fake.on_term = Some(0));
    lab.end(&children[0], Some(0.6), 0);
    assert_eq!(lab.run().status, TuningStatus::InProgress, "control: not reached yet");
    let running = lab.running();
    for child in &running {
        lab.world
            .with(&child.run.placement.workload, |fake| fake.on_term = Some(0));
    }
    lab.end(&running[0], Some(0.5), 0);
    let job = lab.run();
    assert_eq!(
        (job.status, job.enough.map(|(why, _)| why)),
        (TuningStatus::Completed, Some(Enough::Target))
    );
    assert_eq!(job.counts().stopped, 1, "what ran was stopped");

    let mut lab = Lab::new(50, 1, |job| job.criteria.not_improving = Some(3));
    for loss in [1.0, 0.999, 1.5, 0.998] {
        lab.run();
        let child = &lab.running()[0];
        lab.end(child, Some(loss), 0);
    }
    let job = lab.run();
    assert_eq!((job.status, job.trials.len()), (TuningStatus::Completed, 4));
    assert_eq!(job.enough.map(|(why, _)| why), Some(Enough::NotImproving));

    let mut lab = Lab::new(50, 1, |job| job.limits.runtime = Some(120));
    lab.run();
    let child = &lab.running()[0];
    lab.end(child, Some(1.0), 0);
    lab.run();
    let child = &lab.running()[0];
    lab.world
        .with(&child.run.placement.workload, |fake| fake.on_term = Some(0));
    lab.world.clock.advance(Duration::from_secs(121));
    let job = lab.run();
    assert_eq!(
        (job.status, job.enough.map(|(why, _)| why)),
        (TuningStatus::Completed, Some(Enough::Runtime))
    );

    let mut lab = Lab::new(60, 1, |job| {
        job.strategy = Strategy::Bayesian;
        job.criteria.convergence = true;
        job.definitions[0].objective.goal = Goal::Maximize;
    });
    for _ in 0..60 {
        if lab.run().status.is_final() {
            break;
        }
        let child = lab.running().remove(0);
        let x = Lab::value(&child);
        lab.end(&child, Some(10.0 - (x - 0.3) * (x - 0.3)), 0);
    }
    let job = lab.job();
    assert_eq!(job.enough.map(|(why, _)| why), Some(Enough::Converged));
    assert!(job.trials.len() < 30, "{}", job.trials.len());
}

/// Proves: SM-36
#[test]
fn a_training_job_worse_than_the_median_of_earlier_ones_is_stopped_early() {
    let mut lab = Lab::new(6, 1, |job| job.early_stopping = true);
    for _ in 0..4 {
        lab.run();
        let child = lab.running().remove(0);
        let workload = child.run.placement.workload.clone();
        lab.world.print(&workload, "loss=1.0;");
        lab.world.print(&workload, "loss=0.5;");
        lab.run();
        lab.world.exit(&workload, 0);
    }
    lab.run();
    let good = lab.running().remove(0);
    lab.world.print(&good.run.placement.workload, "loss=0.9;");
    lab.run();
    assert_eq!(lab.running()[0].name, good.name, "control: a good one goes on");
    lab.world.exit(&good.run.placement.workload, 0);
    lab.run();
    // The curves of the ended ones are found again after a restart.
    lab.restart();
    let bad = lab.running().remove(0);
    lab.world
        .with(&bad.run.placement.workload, |fake| fake.on_term = Some(0));
    lab.world.print(&bad.run.placement.workload, "loss=3.0;");
    let job = lab.run();
    let bad = lab.children().into_iter().find(|child| child.name == bad.name).unwrap();
    assert_eq!(bad.status(), TrainingJobStatus::Stopped);
    assert_eq!(job.status, TuningStatus::Completed);
    let counts = job.counts();
    assert_eq!(
        (counts.completed, counts.stopped, counts.objective_succeeded),
        (5, 1, 6)
    );
    let curves = lab.world.state().all::<TrialCurve>().unwrap();
    let told: Vec<u64> = curves.iter().map(|stored| stored.record.curve.told()).collect();
    assert_eq!((told.len(), told.iter().sum::<u64>()), (6, 10));
}

/// Proves: SM-35
#[test]
fn hyperband_stops_the_worse_two_thirds_and_whoever_reached_the_maximum() {
    let mut lab = Lab::new(6, 6, |job| {
        job.strategy = Strategy::Hyperband;
        job.hyperband = Some(HyperbandResources { min: 1, max: 2 });
    });
    lab.run();
    let children = lab.running();
    assert_eq!(children.len(), 6);
    for (at, child) in children.iter().enumerate() {
        let workload: &WorkloadId = &child.run.placement.workload;
        lab.world.with(workload, |fake| fake.on_term = Some(0));
        lab.world.print(workload, &format!("loss={at}.5;"));
    }
    lab.run();
    let left: Vec<String> = lab.running().into_iter().map(|child| child.name).collect();
    assert_eq!(left, [children[0].name.clone(), children[1].name.clone()]);
    lab.world.print(&children[0].run.placement.workload, "loss=0.1;");
    let job = lab.run();
    assert_eq!(lab.running().len(), 1, "one reached MaxResource");
    assert_eq!(job.best().unwrap().job_name, children[0].name);
}

/// Proves: SM-35
#[test]
fn a_warm_start_learns_from_parents_and_has_its_own_trials() {
    let earlier = (0..12).map(|at| {
        let x = f64::from(at) / 12.0;
        EarlierTrial {
            parent: 0,
            values: Values::from([("x".into(), x.to_string()), ("fixed".into(), "7".into())]),
            value: (x - 0.4) * (x - 0.4),
        }
    });
    let trials: Vec<EarlierTrial> = earlier.collect();
    for kind in [
        WarmStartKind::IdenticalDataAndAlgorithm,
        WarmStartKind::TransferLearning,
    ] {
        let mut lab = Lab::new(2, 1, |job| {
            job.strategy = Strategy::Bayesian;
            job.warm_start = Some(WarmStart {
                kind,
                trials: trials.clone(),
                best: None,
            });
        });
        lab.run();
        let x = Lab::value(&lab.running()[0]);
        assert!((x - 0.4).abs() < 0.15, "{kind:?}: {x}");
        assert_eq!(lab.job().counts().in_progress, 1, "trials of parents are not its own");
    }
}

/// Proves: SM-35
#[test]
fn a_tuning_job_waits_for_the_operators_limit_of_instances() {
    let mut lab = Lab::new(3, 3, |_| {});
    lab.deps.settings.training_instances = Some(2);
    lab.run();
    assert_eq!(lab.running().len(), 2);
    let child = &lab.running()[0];
    lab.end(child, Some(1.0), 0);
    lab.run();
    assert_eq!((lab.running().len(), lab.children().len()), (2, 3));
}

/// Whatever commit is the last of a process: no trial is started twice, none is lost, and the end is the same.
///
/// Proves: SM-35
#[test]
fn a_kill_at_any_step_neither_repeats_nor_loses_a_training_job() {
    let expected: Vec<Values> = {
        let mut lab = Lab::new(4, 2, |_| {});
        lab.finish().trials.into_iter().map(|trial| trial.values).collect()
    };
    for kill in 0..24 {
        let mut lab = Lab::new(4, 2, |_| {});
        let mut killed = false;
        for round in 0..200 {
            // A kill between any two rounds, and within one: the step is begun, and what it keeps in memory is lost.
            if round == kill && !killed {
                killed = true;
                let _ = step(&lab.deps, &key(NAME), &mut TuningMemory::default());
                lab.restart();
            }
            lab.round().unwrap();
            lab.world.clock.advance(Duration::from_millis(150));
            let job = lab.job();
            let records: BTreeSet<String> = lab.children().into_iter().map(|child| child.name).collect();
            let trials: BTreeSet<String> = job.trials.iter().map(|trial| trial.job_name.clone()).collect();
            assert_eq!(records, trials, "a trial and its training job come together");
            assert!(lab.running().len() <= 2);
            if job.status.is_final() {
                break;
            }
            if round % 3 == 2 {
                for child in lab.running() {
                    if child.run.launched && child.status() == TrainingJobStatus::InProgress {
                        lab.end(&child, Some(Lab::value(&child)), 0);
                    }
                }
            }
        }
        let job = lab.job();
        assert_eq!(job.status, TuningStatus::Completed, "killed before round {kill}");
        assert_eq!(
            job.trials.into_iter().map(|trial| trial.values).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(lab.world.lock().launches, 4);
    }
}

/// Proves: SM-35
#[test]
fn a_name_that_is_taken_and_a_record_that_changed_do_not_start_a_second_training_job() {
    let lab = Lab::new(4, 4, |_| {});
    let seen = lab.job();
    let (at, values) = launch::next(&seen).unwrap();
    let newer = launch::start(&lab.deps, &key(NAME), &seen, at, &values)
        .unwrap()
        .unwrap();
    assert_eq!(newer.trials.len(), 1);
    // The same decision again, as by a process that did not see its own commit.
    assert!(
        launch::start(&lab.deps, &key(NAME), &seen, at, &values)
            .unwrap()
            .is_none()
    );
    lab.stop();
    let (at, values) = launch::next(&newer).unwrap();
    assert!(
        launch::start(&lab.deps, &key(NAME), &newer, at, &values)
            .unwrap()
            .is_none()
    );
    assert_eq!(lab.children().len(), 1);
    let conflict = lab.world.state().commit(
        Batch::default()
            .put(
                &TrainingJob::key(&scope(), &newer.trials[0].job_name),
                Expect::Absent,
                &lab.children()[0],
            )
            .unwrap(),
    );
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "control");
}

/// Proves: SM-35
#[test]
fn a_training_job_that_was_deleted_counts_as_stopped() {
    let mut lab = Lab::new(1, 1, |_| {});
    lab.run();
    let child = lab.running().remove(0);
    let batch = Batch::default().delete::<TrainingJob>(&TrainingJob::key(&scope(), &child.name), Expect::Any);
    lab.world.state().commit(batch).unwrap();
    let job = lab.run();
    assert_eq!(job.counts().stopped, 1);
    assert!(job.status.is_final());
}

/// Proves: SM-35
#[test]
fn a_foreign_training_job_under_a_trials_name_is_neither_read_nor_stopped() {
    for foreign in [true, false] {
        let mut lab = Lab::new(2, 1, |_| {});
        lab.run();
        let own = lab.running().remove(0);
        let mut other = own.clone();
        other.created = lab.world.now();
        if foreign {
            other.tuning_job = None;
        }
        let child = TrainingJob::key(&scope(), &own.name);
        let batch = Batch::default().put(&child, Expect::Any, &other).unwrap();
        lab.world.state().commit(batch).unwrap();
        lab.stop();
        step(&lab.deps, &key(NAME), &mut lab.memory).unwrap();
        let left = lab.deps.store.get::<TrainingJob>(&child).unwrap().unwrap().record;
        assert_eq!(left.run.stop.is_none(), foreign, "its own is stopped");
        assert_eq!(lab.job().trials[0].end.is_some(), foreign, "its own has not ended yet");
    }
}

/// Proves: SM-9
#[test]
fn the_tuning_job_of_a_child_is_found_by_its_name() {
    let parent = |name: &str| parent_of(&key(name)).map(|key| key.name.to_string());
    assert_eq!(parent("my-tuning-007-0123abcd").as_deref(), Some("my-tuning"));
    assert_eq!(parent("my-tuning"), None);
    assert_eq!(parent("a-b-cdefghij"), None);
}
