//! Jobs with several instances.

use super::*;
use isolarium_model::ec2::id::VpcId;
use isolarium_model::ec2::traffic::Match;
use isolarium_model::sagemaker::network::PEER_BLOCK;
use isolarium_model::sagemaker::training_job::InstanceGroup;
use isolarium_netplan::intent::Tunnel;
use std::net::Ipv4Addr;

/// A job of three instances: isolated among themselves, or in the platform network.
pub(super) fn three(isolated: bool, edit: impl FnOnce(&mut TrainingJob)) -> Lab {
    let lab = Lab::new(isolated, edit);
    for (key, text) in [("b.csv", "b"), ("c.csv", "c"), ("d.csv", "d")] {
        lab.world.put_object(&format!("s3://data/train/{key}"), text.as_bytes());
    }
    let network = JobNetwork::new(Some(isolated), None);
    let mut placements = vec![lab.job().run.placement];
    let arn = TrainingJob::arn(&scope(), NAME);
    while placements.len() < 3 {
        let (placement, batch) = lab.deps.place(&network, &key(NAME), &arn, Batch::default()).unwrap();
        if !batch.changes.is_empty() {
            lab.world.state().commit(batch).unwrap();
        }
        placements.push(placement);
    }
    if isolated {
        let peers = VpcId::of(placements[0].workload.number());
        for (number, placement) in placements.iter_mut().enumerate() {
            placement.attachment = Attachment::peer(peers, &placement.workload, number).unwrap();
        }
    }
    change(&lab, |job| {
        job.run = JobRun::new(placements.clone()).unwrap();
        job.spec.instances = 3;
    });
    lab
}

fn change(lab: &Lab, mut edit: impl FnMut(&mut TrainingJob)) {
    let changed = lab.deps.update::<TrainingJob>(&key(NAME), |job, batch| {
        edit(job);
        Ok(Some(batch))
    });
    changed.unwrap();
}

pub(super) fn workloads(lab: &Lab) -> Vec<WorkloadId> {
    let run = lab.job().run;
    run.placements().map(|placement| placement.workload.clone()).collect()
}

fn network(lab: &Lab) -> VpcId {
    lab.job().run.placement.peer_network().unwrap()
}

/// Proves: CC-19, CC-20, CC-28, NI-10
#[test]
fn every_instance_has_its_name_its_share_and_the_names_of_all() {
    let mut lab = three(true, |job| {
        job.spec.channels[0].distribution = Distribution::ShardedByS3Key;
        job.spec.channels.push(Channel {
            name: "all".into(),
            distribution: Distribution::FullyReplicated,
            ..job.spec.channels[0].clone()
        });
    });
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let hosts = ["algo-1", "algo-2", "algo-3"];
    let shares = [vec!["a.csv", "d.csv"], vec!["b.csv"], vec!["c.csv"]];
    for ((workload, host), share) in workloads(&lab).iter().zip(hosts).zip(shares) {
        let one = lab.world.container(workload);
        assert_eq!(one.spec.hostname, host);
        let config: serde_json::Value = serde_json::from_str(&one.input["config/resourceconfig.json"]).unwrap();
        assert_eq!(config["current_host"], host);
        assert_eq!(config["hosts"], serde_json::json!(hosts));
        assert_eq!(config["instance_groups"][0]["hosts"], serde_json::json!(hosts));
        assert_eq!(config["network_interface_name"], "eth0");
        let named: Vec<(std::net::IpAddr, Vec<String>)> = (4..7)
            .zip(hosts)
            .map(|(last, name)| (Ipv4Addr::new(10, 0, 0, last).into(), vec![name.to_string()]))
            .collect();
        assert_eq!(one.spec.hosts, named);
        assert!(one.spec.resolvers.is_empty(), "no other name");
        let below = |channel: &str| -> Vec<String> {
            let prefix = format!("data/{channel}/");
            let names = one.input.keys().filter_map(|path| path.strip_prefix(&prefix));
            names.map(String::from).collect()
        };
        assert_eq!(below("train"), share);
        assert_eq!(below("all").len(), 4);
        let uri = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        assert!(one.spec.process.env.iter().all(|(name, _)| name != uri));
    }
}

/// Proves: CC-7, CC-19, CC-28
#[test]
fn instances_of_a_group_have_its_type_and_its_channels() {
    let mut lab = three(true, |job| {
        let first = job.spec.channels[0].clone();
        job.spec.channels[0].distribution = Distribution::ShardedByS3Key;
        job.spec.channels[0].groups = vec!["workers".into()];
        job.spec.channels.push(Channel {
            name: "all".into(),
            ..first
        });
    });
    let group = |name: &str, instance_type: &str, instances| InstanceGroup {
        name: name.into(),
        instance_type: instance_type.into(),
        instances,
    };
    change(&lab, |job| {
        job.spec.groups = vec![group("lead", "ml.m5.large", 1), group("workers", "ml.m5.xlarge", 2)];
    });
    lab.run();
    let shares = [None, Some(vec!["a.csv", "c.csv"]), Some(vec!["b.csv", "d.csv"])];
    for ((number, workload), share) in workloads(&lab).iter().enumerate().zip(shares) {
        let one = lab.world.container(workload);
        let config: serde_json::Value = serde_json::from_str(&one.input["config/resourceconfig.json"]).unwrap();
        let (own, of_type) = match number {
            0 => ("lead", "ml.m5.large"),
            _ => ("workers", "ml.m5.xlarge"),
        };
        assert_eq!(config["current_group_name"], own);
        assert_eq!(config["current_instance_type"], of_type);
        assert_eq!(config["hosts"], serde_json::json!(["algo-1", "algo-2", "algo-3"]));
        let groups = serde_json::json!([
            {"instance_group_name": "lead", "instance_type": "ml.m5.large", "hosts": ["algo-1"]},
            {"instance_group_name": "workers", "instance_type": "ml.m5.xlarge", "hosts": ["algo-2", "algo-3"]},
        ]);
        assert_eq!(config["instance_groups"], groups);
        let shape = lab.deps.settings.instances.shape(of_type).unwrap();
        assert_eq!(
            one.spec.limits.cpu_millis,
            shape.vcpus * 1000,
            "the limits of its own type"
        );
        let below = |channel: &str| -> Vec<String> {
            let prefix = format!("data/{channel}/");
            let names = one.input.keys().filter_map(|path| path.strip_prefix(&prefix));
            names.map(String::from).collect()
        };
        assert_eq!(below("all").len(), 4);
        assert_eq!(below("train"), share.clone().unwrap_or_default());
        let channels: serde_json::Value = serde_json::from_str(&one.input["config/inputdataconfig.json"]).unwrap();
        assert_eq!(channels.get("train").is_some(), share.is_some());
    }
}

/// Proves: CC-89
#[test]
fn an_encrypted_job_tells_every_container_its_peers_and_lets_nothing_else_between_them() {
    for encrypted in [false, true] {
        let mut lab = three(true, |_| {});
        change(&lab, |job| job.run = job.run.clone().encrypted(encrypted));
        lab.run();
        let all = workloads(&lab);
        for (number, workload) in all.iter().enumerate() {
            let address = |n: usize| Ipv4Addr::new(10, 0, 0, 4 + u8::try_from(n).unwrap());
            let others = (0..3).filter(|other| *other != number);
            let wanted = Tunnel {
                own: address(number),
                peers: others.map(|n| (address(n), all[n].clone())).collect(),
            };
            assert_eq!(lab.world.container(workload).spec.tunnel, encrypted.then_some(wanted));
        }
        let applied = lab.world.vpcs.state().vpcs[&network(&lab)].clone();
        let rules = applied.groups.values().flat_map(|group| &group.ingress);
        let everything = rules.clone().any(|rule| rule.traffic == Match::All);
        assert_eq!((everything, rules.count()), (!encrypted, 1));
    }
    // An attempt that follows a lost one is encrypted too.
    let mut lab = three(true, |job| job.spec.max_retries = 1);
    change(&lab, |job| job.run = job.run.clone().encrypted(true));
    lab.run();
    let first = workloads(&lab);
    lab.world.lock().containers.remove(&first[0]);
    lab.world.look(&lab.deps);
    lab.run();
    lab.after(1);
    let second = workloads(&lab);
    assert!(
        second.iter().all(|workload| !first.contains(workload)),
        "another attempt"
    );
    for workload in &second {
        let tunnel = lab.world.container(workload).spec.tunnel.unwrap();
        assert!(tunnel.peers.len() == 2 && tunnel.peers.iter().all(|(_, peer)| second.contains(peer)));
    }
    let alone = JobRun::new(vec![Lab::new(true, |_| {}).job().run.placement]).unwrap();
    assert!(!alone.encrypted(true).encrypted);
}

/// Proves: CC-20, NI-9, NET-73
#[test]
fn no_program_begins_before_all_containers_are_there_and_their_network_before_any() {
    let mut lab = three(true, |_| {});
    let all = workloads(&lab);
    lab.world.vpcs.state().failing.insert("apply_vpc", "away".into());
    assert!(step(&lab.deps, &key(NAME), &mut lab.memory).is_err(), "to be repeated");
    assert_eq!(lab.world.lock().launches, 0, "nothing without its network");
    lab.world.vpcs.state().failing.clear();
    lab.world.lock().unlaunchable.insert(all[2].clone());
    assert!(step(&lab.deps, &key(NAME), &mut lab.memory).is_err(), "to be repeated");
    assert_eq!(lab.world.lock().launches, 2);
    assert!(all[..2].iter().all(|one| lab.world.container(one).spec.held));
    let applied = lab.world.vpcs.state().vpcs[&network(&lab)].clone();
    assert!(applied.peers_only && applied.blocks == [PEER_BLOCK] && applied.interfaces.len() == 3);
    lab.restart();
    lab.world.lock().unlaunchable.clear();
    lab.world.fail("release", "away");
    assert!(step(&lab.deps, &key(NAME), &mut lab.memory).is_err(), "to be repeated");
    assert!(all.iter().all(|one| lab.world.container(one).spec.held));
    assert_eq!(lab.job().status(), TrainingJobStatus::InProgress);
    assert!(!lab.job().run.launched);
    lab.restart();
    lab.world.mend("release");
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    assert!(all.iter().all(|one| !lab.world.container(one).spec.held));
    assert_eq!(lab.world.lock().launches, 3, "each once");
}

/// Proves: CC-31, CC-32, CC-90
#[test]
fn a_job_is_done_when_all_instances_are_and_their_models_become_one() {
    let mut lab = three(true, |_| {});
    lab.run();
    let peers = network(&lab);
    for (number, workload) in workloads(&lab).iter().enumerate() {
        lab.world.print(workload, &format!("hello from {number}"));
        lab.world.write(workload, "model", &format!("part-{number}"), "w");
        lab.world.write(workload, "model", "same", &number.to_string());
    }
    let all = workloads(&lab);
    lab.world.exit(&all[0], 0);
    lab.world.exit(&all[2], 0);
    assert_eq!(lab.after(1).secondary, SecondaryStatus::Training, "one still runs");
    lab.world.exit(&all[1], 0);
    let done = lab.after(1);
    assert_eq!(done.secondary, SecondaryStatus::Completed);
    let model = lab.world.archive("s3://out/jobs/Churn/output/model.tar.gz");
    let wanted = [("part-0", "w"), ("part-1", "w"), ("part-2", "w"), ("same", "2")];
    assert_eq!(model, wanted.map(|(name, text)| (name.into(), text.into())).into());
    for number in 0..3 {
        let lines = lab.world.lines(TrainingJob::LOG_GROUP, &done.log_stream(number));
        assert_eq!(lines, [format!("hello from {number}")]);
    }
    assert!(done.log_stream(1).starts_with("Churn/algo-2-"));
    assert!(lab.world.lock().containers.is_empty());
    assert!(
        !lab.world.vpcs.state().vpcs.contains_key(&peers),
        "the network goes with the job"
    );
}

/// Proves: CC-31, CC-33, CC-34, SM-65
#[test]
fn the_first_failure_ends_the_others_the_patient_way_and_names_its_instance() {
    let mut lab = three(true, |_| {});
    lab.run();
    let all = workloads(&lab);
    lab.world.with(&all[0], |one| one.on_term = Some(0));
    lab.world.with(&all[2], |one| one.on_term = None);
    lab.world.write(&all[1], "output", "failure", "no data");
    lab.world.write(&all[0], "output-data", "zero", "0");
    lab.world.write(&all[2], "output-data", "two", "2");
    lab.world.write(&all[0], "model", "half", "h");
    lab.world.exit(&all[1], 3);
    assert_eq!(lab.after(1).secondary, SecondaryStatus::Training, "one has its grace");
    assert_eq!(lab.world.container(&all[0]).signals, [false]);
    assert_eq!(lab.world.container(&all[2]).signals, [false]);
    // The grace counts from the failure, also for a new process.
    lab.restart();
    lab.after(118);
    assert_eq!(lab.world.container(&all[2]).signals.last(), Some(&false));
    let failed = lab.after(1);
    assert_eq!(
        failed.failure_reason.unwrap().as_str(),
        "AlgorithmError: algo-2: no data, exit code: 3"
    );
    let output = lab.world.archive("s3://out/jobs/Churn/output/output.tar.gz");
    assert_eq!(output.keys().collect::<Vec<_>>(), ["two", "zero"]);
    assert!(lab.world.object("s3://out/jobs/Churn/output/model.tar.gz").is_none());
    assert!(lab.world.lock().containers.is_empty());
}

/// Proves: CC-34
#[test]
fn stop_reaches_every_instance_and_those_that_wait_are_not_waited_for() {
    let mut lab = three(true, |_| {});
    lab.run();
    let all = workloads(&lab);
    lab.world.with(&all[1], |one| one.on_term = None);
    lab.ask_to_stop();
    assert_eq!(lab.run().secondary, SecondaryStatus::Stopping);
    assert!(all.iter().all(|one| lab.world.container(one).signals == [false]));
    assert_eq!(lab.after(120).secondary, SecondaryStatus::Stopped);

    let mut lab = three(true, |_| {});
    lab.world.fail("release", "away");
    assert!(step(&lab.deps, &key(NAME), &mut lab.memory).is_err());
    lab.ask_to_stop();
    assert_eq!(
        lab.run().secondary,
        SecondaryStatus::Stopped,
        "held ones hear nothing but SIGKILL"
    );
}

/// Proves: CC-31
#[test]
fn a_restart_at_any_step_of_three_instances_changes_nothing() {
    for restart_at in 0..12 {
        let mut lab = three(true, |_| {});
        let (mut steps, mut ended) = (0, false);
        let done = loop {
            if steps == restart_at {
                lab.restart();
            }
            steps += 1;
            lab.world.look(&lab.deps);
            let next = step(&lab.deps, &key(NAME), &mut lab.memory).unwrap();
            if next == Next::Done {
                break lab.job();
            }
            if lab.job().secondary == SecondaryStatus::Training && !ended {
                ended = true;
                for workload in workloads(&lab) {
                    lab.world.print(&workload, "line");
                    lab.world.exit(&workload, 0);
                }
            }
            lab.world.clock.advance(Duration::from_secs(1));
        };
        assert_eq!(done.secondary, SecondaryStatus::Completed, "{restart_at}");
        assert_eq!(lab.world.lock().launches, 3, "{restart_at}");
        for number in 0..3 {
            let lines = lab.world.lines(TrainingJob::LOG_GROUP, &done.log_stream(number));
            assert_eq!(lines, ["line"], "{restart_at}");
        }
        assert!(lab.world.lock().containers.is_empty(), "{restart_at}");
    }
}

/// Proves: CC-85
#[test]
fn in_the_platform_network_the_containers_of_a_job_are_let_to_each_other_while_it_lives() {
    let mut lab = three(false, |_| {});
    lab.run();
    let run = lab.job().run;
    let addresses: std::collections::BTreeSet<Ipv4Addr> = run
        .placements()
        .filter_map(|placement| placement.platform_address())
        .collect();
    assert_eq!(addresses.len(), 3);
    assert_eq!(lab.world.vpcs.state().peers, [addresses.clone()].into());
    for workload in workloads(&lab) {
        let spec = lab.world.container(&workload).spec;
        assert_eq!(spec.hosts.len(), 3);
        assert!(matches!(spec.network.reach, intent::Reach::ServiceNetwork { .. }));
        lab.world.exit(&workload, 0);
    }
    lab.world.vpcs.state().failing.insert("set_peers", "away".into());
    lab.world.clock.advance(Duration::from_secs(1));
    lab.world.look(&lab.deps);
    while lab.job().status() == TrainingJobStatus::InProgress {
        let _fails_at_the_end = step(&lab.deps, &key(NAME), &mut lab.memory);
    }
    assert!(step(&lab.deps, &key(NAME), &mut lab.memory).is_err());
    assert_eq!(
        lab.world.state().all::<AddressLease>().unwrap().len(),
        3,
        "no address is free while it is still let to the others"
    );
    lab.world.vpcs.state().failing.clear();
    lab.run();
    assert!(lab.world.vpcs.state().peers.is_empty());
    assert_eq!(lab.world.state().all::<AddressLease>().unwrap().len(), 0);
}

/// Proves: D-24, VPC-26
#[test]
fn isolated_instances_in_a_vpc_meet_in_their_own_network_as_the_groups_allow() {
    use isolarium_model::ec2::id::{GroupId, SubnetId};
    let mut lab = in_a_vpc(true);
    crate::network::tests::vpc_with(&lab.world, 24);
    let workload: WorkloadId = "w-0000000000000abcd".parse().unwrap();
    let peers = VpcId::of(0xfeed);
    change(&lab, |job| {
        let attachment = Attachment::Unattached {
            isolated: true,
            peers: Some(peers),
        };
        job.run.placement.attachment = attachment.clone();
        job.run.others = vec![Placement {
            workload: workload.clone(),
            attachment,
        }];
    });
    let running = lab.run();
    assert_eq!(
        running.secondary,
        SecondaryStatus::Training,
        "{:?}",
        running.failure_reason
    );
    let own = lab.world.vpcs.state().vpcs[&peers].clone();
    assert!(own.peers_only && own.internet_gateway.is_none() && own.s3_endpoints.is_empty());
    let places: Vec<_> = running
        .run
        .placements()
        .map(|placement| placement.vpc().cloned().unwrap())
        .collect();
    assert_eq!(own.interfaces.len(), 2);
    for place in &places {
        let one = &own.interfaces[&place.container];
        assert_eq!((one.primary, one.subnet), (place.address, SubnetId::of(1)));
        assert_eq!(one.groups, [GroupId::of(1)].into(), "the caller's groups decide");
        let spec = lab.world.container(&running.run.placement.workload).spec;
        assert!(
            spec.hosts
                .iter()
                .any(|(address, _)| *address == std::net::IpAddr::V4(place.address))
        );
    }
    // A rule that changes counts at once, in the job's network too.
    let mut group: isolarium_model::ec2::SecurityGroup =
        crate::network::tests::get(&lab.world, GroupId::of(1)).unwrap();
    let before = own.groups[&GroupId::of(1)].clone();
    let rules = std::mem::take(&mut group.rules);
    crate::network::tests::put(&lab.world, &group);
    crate::network::step(&lab.deps).unwrap();
    let told = || lab.world.vpcs.state().vpcs[&peers].groups[&GroupId::of(1)].clone();
    let after = told();
    assert!(before != after && after.ingress.is_empty() && after.egress.is_empty());
    // So does one that the host could not take at first: nobody waits for the look at everything.
    group.rules = rules;
    crate::network::tests::put(&lab.world, &group);
    let networks = &lab.deps.networks;
    networks.note(
        isolarium_model::ec2::SecurityGroup::KIND,
        &crate::network::key(&scope(), group.id),
    );
    lab.world.vpcs.state().failing.insert("apply_vpc", "away".into());
    crate::network::step(&lab.deps).unwrap();
    assert_eq!(told(), after, "control: it was refused");
    lab.world.vpcs.state().failing.clear();
    crate::network::step(&lab.deps).unwrap();
    assert_eq!(told(), before);
    for one in workloads(&lab) {
        lab.world.exit(&one, 0);
    }
    assert_eq!(lab.after(1).secondary, SecondaryStatus::Completed);
    assert!(!lab.world.vpcs.state().vpcs.contains_key(&peers));
    assert_eq!(interfaces(&lab), vec![]);
}
