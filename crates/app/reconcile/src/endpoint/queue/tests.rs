use super::*;
use crate::endpoint::tests::{Lab, NAME, variant};
use crate::fake::{key, scope};
use isolarium_model::sagemaker::async_inference::AsyncInference;
use isolarium_model::sagemaker::{EndpointEvent, EndpointStatus};
use isolarium_store::Expect;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// An asynchronous endpoint in service whose container answers with `answer`.
fn lab(answer: impl Fn(&[u8]) -> Option<(u16, Vec<u8>)> + Send + Sync + 'static) -> Lab {
    let mut lab = Lab::new(vec![variant("v", 1)]);
    lab.world.lock().answers = Some(Arc::new(move |line: &str, _: &str, body: &[u8]| {
        if line.starts_with("GET /ping") {
            return Some((200, Vec::new()));
        }
        answer(body)
    }));
    lab.edit(|endpoint| {
        endpoint.pending.as_mut().unwrap().asynchronous = Some(AsyncInference {
            output: "s3://out/o".parse().unwrap(),
            failure: Some("s3://out/f".parse().unwrap()),
            per_instance: Some(1),
            kms_key: Some("alias/k".into()),
        });
    });
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    lab
}

fn accept(lab: &Lab, id: &str, ttl: u64) {
    let now = lab.world.now();
    lab.world.put_object(&format!("s3://in/{id}"), id.as_bytes());
    let request = AsyncInvocation {
        id: id.into(),
        endpoint: NAME.to_ascii_lowercase(),
        endpoint_arn: Endpoint::arn(&scope(), NAME),
        inference_id: id.into(),
        input: format!("s3://in/{id}").parse().unwrap(),
        output: format!("s3://out/o/{id}").parse().unwrap(),
        failure: Some(format!("s3://out/f/{id}").parse().unwrap()),
        content_type: None,
        accept: None,
        custom_attributes: None,
        accepted: now,
        expires: now.after(Duration::from_secs(ttl)),
        timeout: 900,
    };
    let batch = Batch::default()
        .put(&request.key(&scope()), Expect::Absent, &request)
        .unwrap();
    lab.world.state().commit(batch).unwrap();
}

fn waiting(lab: &Lab) -> usize {
    lab.world.state().all::<AsyncInvocation>().unwrap().len()
}

fn object(lab: &Lab, uri: &str) -> Option<String> {
    let objects = &lab.world.lock().objects;
    objects
        .get(uri)
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Steps until it is so: requests run on threads of their own.
fn until(lab: &mut Lab, what: &str, done: impl Fn(&Lab) -> bool) {
    let begun = Instant::now();
    while !done(lab) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        lab.step();
        lab.world.clock.advance(Duration::from_millis(100));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Proves: SM-55
#[test]
fn what_waits_is_answered_in_order_and_its_record_goes_last() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let mut lab = lab(move |body| {
        seen.lock().unwrap().push(String::from_utf8_lossy(body).into_owned());
        match body {
            b"c" => Some((500, b"no".to_vec())),
            _ => Some((200, [b"of ", body].concat())),
        }
    });
    for id in ["a", "b", "c", "d"] {
        accept(&lab, id, 1_000_000_000);
        lab.world.clock.advance(Duration::from_millis(5));
    }
    until(&mut lab, "all are answered", |lab| waiting(lab) == 0);
    for id in ["a", "b", "d"] {
        assert_eq!(object(&lab, &format!("s3://out/o/{id}")).unwrap(), format!("of {id}"));
    }
    let words = "Received server error (500) from primary with message \"no\".";
    assert_eq!(object(&lab, "s3://out/f/c").unwrap(), words);
    assert_eq!(object(&lab, "s3://out/o/c"), None);
    assert_eq!(
        *order.lock().unwrap(),
        ["a", "b", "c", "d"],
        "one at a time, the oldest first"
    );
    let accesses = lab.world.lock().accesses.clone();
    let moved: Vec<_> = accesses
        .iter()
        .filter(|(_, _, what)| what.contains("s3://in/") || what.contains("s3://out/"))
        .collect();
    assert!(
        moved.len() >= 8 && moved.iter().all(|(role, ..)| role.ends_with(":role/serve")),
        "{accesses:?}"
    );
}

/// Proves: SM-55
#[test]
fn a_request_that_waited_too_long_is_told_so_and_one_that_did_not_is_answered() {
    let mut lab = lab(|_| Some((200, b"well".to_vec())));
    let all: Vec<_> = lab.world.lock().containers.keys().cloned().collect();
    // Nobody can take it while the container does not answer.
    for workload in &all {
        lab.world.lock().containers.get_mut(workload).unwrap().answers_ping = false;
    }
    lab.memory.containers.values_mut().for_each(|one| one.healthy = false);
    accept(&lab, "early", 60);
    accept(&lab, "late", 1_000_000_000);
    lab.world.clock.advance(Duration::from_secs(61));
    until(&mut lab, "it is told", |lab| waiting(lab) == 1);
    assert!(object(&lab, "s3://out/f/early").unwrap().contains("RequestTTLSeconds"));
    lab.world.lock().new_answer_ping = true;
    for one in lab.world.lock().containers.values_mut() {
        one.answers_ping = true;
    }
    until(&mut lab, "the other one is answered", |lab| waiting(lab) == 0);
    assert_eq!(object(&lab, "s3://out/o/late").unwrap(), "well", "control");
}

/// Proves: SM-55, NET-72
#[test]
fn an_output_that_cannot_be_stored_now_is_stored_later_by_another_process_too() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let mut lab = lab(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Some((200, b"well".to_vec()))
    });
    lab.world.lock().failing.insert("put", "engine".into());
    accept(&lab, "a", 1_000_000_000);
    until(&mut lab, "it was tried", |_| asked.load(Ordering::SeqCst) > 0);
    assert_eq!(
        (waiting(&lab), object(&lab, "s3://out/o/a")),
        (1, None),
        "nothing accepted is lost"
    );
    lab.world.lock().failing.clear();
    // Another process knows nothing but the records.
    lab.deps = lab.world.deps();
    lab.memory = EndpointMemory::default();
    until(&mut lab, "it is stored", |lab| waiting(lab) == 0);
    assert_eq!(object(&lab, "s3://out/o/a").unwrap(), "well");
}

/// Proves: SM-55
#[test]
fn a_container_that_breaks_off_each_time_is_not_asked_for_ever() {
    let mut lab = lab(|_| Some((200, Vec::new())));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    lab.world.lock().answers = Some(Arc::new(move |line: &str, _: &str, _: &[u8]| {
        if line.starts_with("GET /ping") {
            return Some((200, Vec::new()));
        }
        counted.fetch_add(1, Ordering::SeqCst);
        // No status: the fake's answer is no HTTP.
        Some((0, Vec::new()))
    }));
    accept(&lab, "a", 1_000_000_000);
    until(&mut lab, "it is given up", |lab| waiting(lab) == 0);
    assert!(object(&lab, "s3://out/f/a").unwrap().contains("broke the request off"));
    assert_eq!(asked.load(Ordering::SeqCst), usize::try_from(TRIES).unwrap());
}

/// Proves: SM-55
#[test]
fn what_waits_goes_with_its_endpoint() {
    let mut lab = lab(|_| Some((200, b"well".to_vec())));
    lab.world.lock().failing.insert("open", "engine".into());
    accept(&lab, "a", 1_000_000_000);
    lab.pass(1);
    assert_eq!(waiting(&lab), 1, "control");
    let now = lab.world.now();
    lab.edit(|endpoint| endpoint.apply(EndpointEvent::DeleteRequested, now).unwrap());
    until(&mut lab, "the endpoint is gone", |lab| {
        lab.world.state().get::<Endpoint>(&key(NAME)).unwrap().is_none()
    });
    assert_eq!(waiting(&lab), 0);
}
