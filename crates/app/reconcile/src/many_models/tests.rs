use super::*;
use crate::endpoint::EndpointMemory;
use crate::endpoint::tests::{creating, targz, variant};
use crate::fake::{World, key};
use isolarium_model::sagemaker::Endpoint;
use isolarium_store::{Batch, Expect};

const NAME: &str = "Ep";

/// A container that has room for `room` models, with what it was asked.
#[derive(Default)]
struct Server {
    room: usize,
    models: Vec<String>,
    asked: Vec<String>,
    /// Lets no model go.
    stubborn: bool,
    /// Lists pages for ever, with a name of its own on each.
    endless: bool,
}

struct Lab {
    world: Arc<World>,
    deps: Deps,
    server: Arc<Mutex<Server>>,
}

impl Lab {
    fn new(caches: bool) -> Self {
        let (world, server) = (World::new(), Arc::new(Mutex::new(Server::default())));
        server.lock().unwrap().room = 2;
        let of = Arc::clone(&server);
        world.lock().answers = Some(Arc::new(move |line: &str, _: &str, body: &[u8]| {
            let mut server = of.lock().unwrap();
            let line = line.trim_end_matches(" HTTP/1.1").to_string();
            if line == "GET /ping" {
                return Some((200, Vec::new()));
            }
            server.asked.push(line.clone());
            let name = line.split('/').nth(2).unwrap_or_default().to_string();
            Some(match line.split(' ').next() {
                Some("POST") => {
                    let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
                    let name = asked["model_name"].as_str().unwrap().to_string();
                    assert_eq!(asked["url"], format!("/opt/ml/models/{name}/model"));
                    if server.models.contains(&name) {
                        (409, Vec::new())
                    } else if server.models.len() >= server.room {
                        (507, b"full".to_vec())
                    } else {
                        server.models.push(name);
                        (200, Vec::new())
                    }
                }
                Some("DELETE") if server.stubborn => (500, b"no".to_vec()),
                Some("GET") if server.endless && line.starts_with("GET /models") => {
                    let page = serde_json::json!({ "models": [{ "modelName": "own" }], "nextPageToken": "more" });
                    (200, page.to_string().into_bytes())
                }
                Some("DELETE") => {
                    server.models.retain(|one| *one != name);
                    (200, Vec::new())
                }
                _ if name.is_empty() => {
                    let listed: Vec<_> = server
                        .models
                        .iter()
                        .map(|one| serde_json::json!({ "modelName": one }))
                        .collect();
                    (200, serde_json::json!({ "models": listed }).to_string().into_bytes())
                }
                _ if server.models.contains(&name) => (200, Vec::new()),
                _ => (404, Vec::new()),
            })
        }));
        let mut one = variant("v", 1);
        one.model.data = Some(ModelData::Many {
            uri: "s3://models/many/".parse().unwrap(),
            caches,
        });
        for model in ["a", "b", "c"] {
            world.put_object(&format!("s3://models/many/{model}.tar.gz"), &targz("weights", model));
        }
        let endpoint = creating(vec![one], world.now());
        let batch = Batch::default().put(&key(NAME), Expect::Absent, &endpoint).unwrap();
        world.state().commit(batch).unwrap();
        let deps = world.deps();
        Self { world, deps, server }
    }

    /// The shelf of the container that serves.
    fn shelf(&self) -> Arc<Shelf> {
        let mut memory = EndpointMemory::default();
        for _ in 0..20 {
            self.world.look(&self.deps);
            crate::endpoint::step(&self.deps, &key(NAME), &mut memory).unwrap();
            self.world.clock.advance(std::time::Duration::from_millis(100));
        }
        let guard = self.deps.fleets.pick(&key(NAME), NAME, None, 0).unwrap();
        Arc::clone(guard.shelf().unwrap())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.server.lock().unwrap().asked)
    }
}

/// Proves: CC-58
#[test]
fn the_least_recently_used_model_makes_room_and_one_in_use_does_not() {
    let lab = Lab::new(true);
    let shelf = lab.shelf();
    let [a, b, c] = ["a", "b", "c"].map(|model| folder(&format!("{model}.tar.gz")));
    for model in ["a.tar.gz", "b.tar.gz"] {
        shelf.load(model).unwrap();
    }
    drop(shelf.take(&b).unwrap());
    let used = shelf.take(&a).unwrap();
    lab.asked();
    // `b` is idle, though it was used after `a` was loaded.
    shelf.load("c.tar.gz").unwrap();
    assert_eq!(
        lab.asked(),
        [
            "POST /models".into(),
            format!("DELETE /models/{b}"),
            "POST /models".into()
        ]
    );
    assert!(shelf.has(&a) && shelf.has(&c) && !shelf.has(&b) && shelf.take(&b).is_none());
    let busy = shelf.take(&c).unwrap();
    assert!(matches!(shelf.load("b.tar.gz"), Err(LoadError::NoRoom(words)) if words == "full"));
    drop(used);
    shelf.load("b.tar.gz").unwrap();
    assert!(shelf.has(&b) && !shelf.has(&a), "what became idle goes");
    drop(busy);
    // All of it was read as the model's role.
    let accesses = lab.world.lock().accesses.clone();
    let read: Vec<_> = accesses
        .iter()
        .filter(|(_, call, what)| call == "open" && what.contains("/many/"))
        .collect();
    assert_eq!(read.len(), 5, "{accesses:?}");
    assert!(read.iter().all(|(role, ..)| role.ends_with(":role/serve")));
}

/// Proves: CC-58
#[test]
fn an_engine_that_starts_anew_finds_what_its_container_has_loaded() {
    let lab = Lab::new(true);
    let shelf = lab.shelf();
    shelf.load("a.tar.gz").unwrap();
    let again = lab.shelf();
    lab.asked();
    again.load("a.tar.gz").unwrap();
    assert_eq!(
        lab.asked(),
        ["GET /models"],
        "it is asked once, and nothing is loaded twice"
    );
    lab.server.lock().unwrap().models.clear();
    assert!(!again.confirm(&folder("a.tar.gz")).unwrap());
    assert!(
        !again.has(&folder("a.tar.gz")),
        "what the container has lost is loaded no more"
    );
    again.load("a.tar.gz").unwrap();
    assert!(again.confirm(&folder("a.tar.gz")).unwrap(), "control");
}

/// Proves: CC-58, NI-18
#[test]
fn nothing_is_fetched_for_a_container_without_its_place_or_from_outside_of_the_prefix() {
    let lab = Lab::new(true);
    lab.world
        .put_object("s3://models/secret.tar.gz", &targz("weights", "s"));
    let shelf = lab.shelf();
    for outside in [
        "../secret.tar.gz",
        "/secret.tar.gz",
        "a/../../secret.tar.gz",
        "",
        "x//y",
    ] {
        let refused = shelf.load(outside);
        assert!(matches!(refused, Err(LoadError::Unusable(_))), "{outside}: {refused:?}");
    }
    let missing = shelf.load("none.tar.gz");
    assert!(
        matches!(missing, Err(LoadError::Unusable(text)) if text.starts_with("Failed to download model data(bucket: models, key: many/none.tar.gz)"))
    );
    lab.deps
        .update::<Endpoint>(&key(NAME), |endpoint, batch| {
            let fleet = endpoint.active.as_mut().unwrap();
            fleet.variants[0].instances[0].placement.attachment = isolarium_model::sagemaker::Attachment::Unattached {
                isolated: false,
                peers: None,
            };
            Ok(Some(batch))
        })
        .unwrap();
    assert!(
        matches!(shelf.load("b.tar.gz"), Err(LoadError::Away(_))),
        "no way to the data is taken but its own"
    );
}

/// Proves: CC-58
#[test]
fn what_was_just_loaded_and_what_the_container_keeps_are_not_forgotten() {
    let lab = Lab::new(false);
    let shelf = lab.shelf();
    let [a, b] = ["a", "b"].map(|model| folder(&format!("{model}.tar.gz")));
    let used = shelf.load("a.tar.gz").unwrap();
    assert!(!shelf.unload_one("").unwrap(), "its caller had it not yet");
    drop(used);
    lab.server.lock().unwrap().stubborn = true;
    assert!(matches!(shelf.unload_one(""), Err(LoadError::Refused(500, words)) if words == "no"));
    assert!(shelf.has(&a), "it takes its room");
    // One that finds no room leaves nothing behind.
    lab.server.lock().unwrap().room = 1;
    assert!(matches!(shelf.load("b.tar.gz"), Err(LoadError::Refused(500, _))));
    assert!(!shelf.has(&b) && shelf.has(&a));
    lab.server.lock().unwrap().stubborn = false;
    drop(shelf.load("b.tar.gz").unwrap());
    assert!(
        shelf.has(&b) && !shelf.has(&a),
        "control: it goes when the container lets it go"
    );
}

#[test]
fn a_container_that_lists_for_ever_is_heard_for_some_time_only() {
    let lab = Lab::new(true);
    lab.server.lock().unwrap().endless = true;
    let shelf = lab.shelf();
    drop(shelf.load("a.tar.gz").unwrap());
    let asked = lab.asked();
    let pages = asked.iter().filter(|line| line.starts_with("GET /models")).count();
    assert!((2..=100).contains(&pages), "{pages}");
    assert!(shelf.has(&folder("a.tar.gz")) && !shelf.has("own"));
}
