//! Gathers an isolation report: attempts of running containers from the host, those of ended ones from their records.

use super::message::{Report, WorkloadReport};
use isolarium_model::sagemaker::flows::OwnerFlows;
use isolarium_model::sagemaker::network::{IsolationRecord, Sight, SightSource};
use isolarium_model::sagemaker::{
    BlockedDestination, Endpoint, NotebookInstance, Placement, ProcessingJob, TrainingJob, TransformJob,
};
use isolarium_model::{Arn, Key, Scope, Timestamp};
use isolarium_runtime::EgressReport;
use isolarium_runtime::executor::{BlockedAttempt, ExecutorError};
use isolarium_store::{Query, StateStore, StoreError};

/// Why there is no report. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("there is no training, processing or transform job or endpoint {0}")]
    Unknown(String),
    #[error("{0} is the name of several; say which by its ARN:\n  {1}\n  {2}")]
    Ambiguous(String, Arn, Arn),
    #[error("the records cannot be read")]
    Store(#[from] StoreError),
    #[error("the node process does not answer")]
    Host(#[source] ExecutorError),
}

/// A job or endpoint with the containers it has now.
struct Subject {
    arn: Arn,
    scope: Scope,
    placements: Vec<Placement>,
}

/// The report of `target`, a name in the scope `home` or an ARN.
///
/// # Errors
/// See [`ReportError`].
pub fn gather(
    store: &dyn StateStore,
    egress: &dyn EgressReport,
    home: &Scope,
    target: &str,
) -> Result<Report, ReportError> {
    let subject = find(store, home, target)?;
    let arn = subject.arn.to_string();
    // Listings know the display name, which is the owner's ARN; they match it loosely.
    let query = Query {
        name_contains: Some(arn.clone()),
        ..Query::all(&subject.scope)
    };
    let mut ended: Vec<IsolationRecord> = store
        .query::<IsolationRecord>(&query)?
        .rows
        .into_iter()
        .map(|stored| stored.record)
        .collect();
    ended.retain(|record| record.owner_arn == arn);
    ended.sort_by_key(|record| record.ended);
    let mut workloads: Vec<WorkloadReport> = ended
        .iter()
        .map(|record| WorkloadReport {
            workload: record.workload.to_string(),
            sight: record.sight,
            attempts: record.attempts.iter().map(attempt).collect(),
        })
        .collect();
    for placement in subject.placements {
        let isolated = placement.isolated();
        if !isolated || ended.iter().any(|record| record.workload == placement.workload) {
            continue;
        }
        let seen = egress
            .sight(&placement.workload)
            .and_then(|sight| Ok((sight, egress.attempts(&placement.workload)?)));
        let (sight, attempts) = match seen {
            Ok(seen) => seen,
            // Not launched yet, or removed since its record was read.
            Err(ExecutorError::Unknown) => {
                let source = SightSource::NotStarted;
                (
                    Sight {
                        source,
                        ..Sight::default()
                    },
                    Vec::new(),
                )
            }
            Err(error) => return Err(ReportError::Host(error)),
        };
        workloads.push(WorkloadReport {
            workload: placement.workload.to_string(),
            sight,
            attempts,
        });
    }
    Ok(Report {
        owner_arn: arn,
        workloads,
    })
}

/// What passed in its VPC for `target`: nothing for one that has none.
///
/// # Errors
/// See [`ReportError`].
pub fn flows(store: &dyn StateStore, home: &Scope, target: &str) -> Result<OwnerFlows, ReportError> {
    let subject = find(store, home, target)?;
    let arn = subject.arn.to_string();
    let key = Key::exact(&subject.scope, &arn);
    let found = store.get::<OwnerFlows>(&key)?.map(|stored| stored.record);
    let found = found.map(|record| OwnerFlows {
        // The loop's own bookkeeping.
        reading: None,
        ..record
    });
    Ok(found.unwrap_or(OwnerFlows {
        owner_arn: arn,
        began: Timestamp(0),
        flows: Vec::new(),
        left_out: 0,
        reading: None,
    }))
}

fn attempt(kept: &BlockedDestination) -> BlockedAttempt {
    BlockedAttempt {
        first: kept.first,
        last: kept.last,
        count: kept.count,
        pid: kept.pid,
        process: kept.process.clone(),
        protocol: kept.protocol.clone(),
        address: kept.address,
        port: kept.port,
        name: kept.name.clone(),
    }
}

fn find(store: &dyn StateStore, home: &Scope, target: &str) -> Result<Subject, ReportError> {
    let unknown = || ReportError::Unknown(target.into());
    let (scope, kind, name) = match target.parse::<Arn>() {
        Ok(arn) => {
            let scope = arn
                .account()
                .zip(arn.region())
                .map(|(account, region)| Scope { account, region });
            let (kind, name) = arn.resource().split_once('/').ok_or_else(unknown)?;
            (scope.ok_or_else(unknown)?, Some(kind.to_owned()), name.to_owned())
        }
        Err(_) => (home.clone(), None, target.to_owned()),
    };
    let wanted = |this: &str| kind.as_deref().is_none_or(|kind| kind == this);
    let mut found = Vec::new();
    if wanted("training-job")
        && let Some(job) = store.get::<TrainingJob>(&TrainingJob::key(&scope, &name))?
    {
        found.push((job.record.arn.clone(), job.record.run.placements().cloned().collect()));
    }
    if wanted("processing-job")
        && let Some(job) = store.get::<ProcessingJob>(&ProcessingJob::key(&scope, &name))?
    {
        found.push((job.record.arn.clone(), job.record.run.placements().cloned().collect()));
    }
    if wanted("transform-job")
        && let Some(job) = store.get::<TransformJob>(&TransformJob::key(&scope, &name))?
    {
        found.push((job.record.arn.clone(), job.record.placements().cloned().collect()));
    }
    if wanted("notebook-instance")
        && let Some(notebook) = store.get::<NotebookInstance>(&NotebookInstance::key(&scope, &name))?
    {
        found.push((
            notebook.record.arn.clone(),
            notebook.record.placements().cloned().collect(),
        ));
    }
    if wanted("endpoint")
        && let Some(endpoint) = store.get::<Endpoint>(&Endpoint::key(&scope, &name))?
    {
        found.push((endpoint.record.arn.clone(), endpoint.record.placements().collect()));
    }
    if let [(first, _), (second, _), ..] = found.as_slice() {
        return Err(ReportError::Ambiguous(target.into(), first.clone(), second.clone()));
    }
    let (arn, placements): (Arn, Vec<Placement>) = found.pop().ok_or_else(unknown)?;
    Ok(Subject { arn, scope, placements })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_model::WorkloadId;
    use isolarium_model::sagemaker::EndpointStatus;
    use isolarium_model::sagemaker::endpoint::Instance;
    use isolarium_model::sagemaker::endpoint::Retiring;
    use isolarium_store::state::memory::MemoryState;
    use isolarium_store::{Batch, Expect};

    struct One;
    impl EgressReport for One {
        fn attempts(&self, workload: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError> {
            if workload.as_str().ends_with('1') {
                Ok(vec![attempt(&blocked("live"))])
            } else {
                Err(ExecutorError::Unknown)
            }
        }

        fn sight(&self, _: &WorkloadId) -> Result<Sight, ExecutorError> {
            Ok(WATCHED)
        }
    }

    const WATCHED: Sight = Sight {
        source: SightSource::Ebpf,
        raw_sockets: true,
        left_out: 7,
    };

    fn blocked(process: &str) -> BlockedDestination {
        BlockedDestination {
            first: Timestamp(0),
            last: Timestamp(1),
            count: 1,
            pid: 1,
            process: process.into(),
            protocol: "tcp".into(),
            address: "203.0.113.10".parse().unwrap(),
            port: 443,
            name: None,
        }
    }

    fn scope() -> Scope {
        Scope {
            account: "123456789012".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        }
    }

    fn workload(n: u8) -> WorkloadId {
        format!("w-{n:017x}").parse().unwrap()
    }

    fn store() -> Box<dyn StateStore> {
        let store: Box<dyn StateStore> = Box::new(MemoryState::new());
        let retiring = |n| Retiring {
            variant: "v".into(),
            instance: Instance {
                id: "i".into(),
                placement: Placement {
                    workload: workload(n),
                    attachment: isolarium_model::sagemaker::Attachment::Isolated,
                },
                since: Timestamp(0),
                healthy: true,
                restarts: 0,
                not_before: Timestamp(0),
                others: vec![],
            },
            names: vec![],
            role_arn: "arn:aws:iam::123456789012:role/r".parse().unwrap(),
            since: Timestamp(0),
        };
        let endpoint = Endpoint {
            name: "Ep".into(),
            arn: Endpoint::arn(&scope(), "Ep"),
            created: Timestamp(0),
            modified: Timestamp(0),
            status: EndpointStatus::InService,
            failure_reason: None,
            config_name: "c".into(),
            active: None,
            pending: None,
            retiring: vec![retiring(1), retiring(2), retiring(3)],
            last_deployment_config: None,
            tags: Default::default(),
        };
        let record = |n, owner: &str| IsolationRecord {
            workload: workload(n),
            owner_arn: owner.into(),
            ended: Timestamp(5),
            attempts: vec![blocked("ended")],
            sight: Sight::default(),
        };
        let batch = Batch::default()
            .put(&Endpoint::key(&scope(), "Ep"), Expect::Absent, &endpoint)
            .unwrap();
        let key = |n| Key::exact(&scope(), workload(n).as_str());
        let batch = batch
            .put(&key(3), Expect::Absent, &record(3, endpoint.arn.as_str()))
            .unwrap();
        let neighbour = format!("{}-2", endpoint.arn);
        let batch = batch.put(&key(4), Expect::Absent, &record(4, &neighbour)).unwrap();
        store.commit(batch).unwrap();
        store
    }

    #[test]
    fn running_and_ended_containers_are_reported_once_each() {
        for target in ["Ep", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/ep"] {
            let report = gather(store().as_ref(), &One, &scope(), target).unwrap();
            let sights: Vec<Sight> = report.workloads.iter().map(|one| one.sight).collect();
            let not_started = Sight {
                source: SightSource::NotStarted,
                ..Sight::default()
            };
            assert_eq!(sights, [Sight::default(), WATCHED, not_started]);
            let seen: Vec<(String, Vec<String>)> = report
                .workloads
                .into_iter()
                .map(|w| (w.workload, w.attempts.into_iter().map(|a| a.process).collect()))
                .collect();
            let want = [(3, vec!["ended"]), (1, vec!["live"]), (2, vec![])];
            assert_eq!(seen.len(), want.len());
            for ((id, processes), (n, expected)) in seen.iter().zip(want) {
                assert_eq!(
                    (id.as_str(), processes.as_slice()),
                    (
                        workload(n).as_str(),
                        expected.iter().map(|s| s.to_string()).collect::<Vec<_>>().as_slice()
                    )
                );
            }
        }
    }

    #[test]
    fn traffic_is_found_by_name_and_there_may_be_none() {
        let store = store();
        let arn = Endpoint::arn(&scope(), "Ep").to_string();
        assert!(flows(store.as_ref(), &scope(), "Ep").unwrap().flows.is_empty());
        let record = OwnerFlows {
            owner_arn: arn.clone(),
            began: Timestamp(3),
            flows: Vec::new(),
            left_out: 9,
            reading: None,
        };
        let key = OwnerFlows::key(&Endpoint::key(&scope(), "Ep"), &arn);
        store
            .commit(Batch::default().put(&key, Expect::Absent, &record).unwrap())
            .unwrap();
        for target in ["Ep", arn.as_str()] {
            assert_eq!(flows(store.as_ref(), &scope(), target).unwrap(), record, "{target}");
        }
        assert!(matches!(
            flows(store.as_ref(), &scope(), "nope"),
            Err(ReportError::Unknown(_))
        ));
    }

    #[test]
    fn what_does_not_exist_is_said() {
        for target in [
            "nope",
            "arn:aws:sagemaker:us-east-1:123456789012:training-job/ep",
            "arn:aws:s3:::b",
        ] {
            let outcome = gather(store().as_ref(), &One, &scope(), target);
            assert!(matches!(outcome, Err(ReportError::Unknown(_))), "{target}");
        }
    }
}
