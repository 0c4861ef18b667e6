//! The live routing table: which containers serve an endpoint now. Written by the endpoint loop, read by the inference
//! proxy on every request.

use crate::capture::Capture;
use crate::many_models::{InUse, Shelf};
use isolarium_model::sagemaker::endpoint::Instance;
use isolarium_model::sagemaker::model::{ExecutionMode, ModelSpec};
use isolarium_model::sagemaker::takeover;
use isolarium_model::{Key, WorkloadId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One container that may get requests.
#[derive(Debug)]
pub struct Target {
    pub workload: WorkloadId,
    /// Second half of the log stream's name (CC-90).
    pub instance_id: String,
    in_flight: AtomicUsize,
    several: Option<Box<Several>>,
    shelf: Option<Arc<Shelf>>,
}

/// The containers of an instance that has several (CC-57).
#[derive(Debug)]
pub struct Several {
    pub mode: ExecutionMode,
    /// In the model's order, at least two.
    pub stages: Vec<Stage>,
}

/// One of them.
#[derive(Debug)]
pub struct Stage {
    /// Its host name; also the last part of its log stream's name.
    pub name: String,
    pub workload: WorkloadId,
    /// Where it listens.
    pub port: u16,
}

impl Target {
    /// A container without requests.
    pub fn new(workload: WorkloadId, instance_id: String) -> Arc<Self> {
        Arc::new(Self {
            workload,
            instance_id,
            in_flight: AtomicUsize::new(0),
            several: None,
            shelf: None,
        })
    }

    /// An instance of a model, without requests; with what its container has loaded, where that changes.
    pub fn of(model: &ModelSpec, instance: &Instance, shelf: Option<Arc<Shelf>>) -> Arc<Self> {
        let stages = model.containers().zip(instance.workloads());
        let several = model.several.as_ref().map(|several| {
            let stages = stages.map(|(one, workload)| Stage {
                name: one.name.unwrap_or_default().to_owned(),
                workload: workload.clone(),
                port: one.port,
            });
            Box::new(Several {
                mode: several.mode,
                stages: stages.collect(),
            })
        });
        Arc::new(Self {
            workload: instance.placement.workload.clone(),
            instance_id: instance.id.clone(),
            in_flight: AtomicUsize::new(0),
            several,
            shelf,
        })
    }

    /// Counts a request that does not come by the proxy as running until what is returned is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Requests that run on it now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

/// A container that a request runs on.
pub(crate) struct Busy(Arc<Target>);

impl Busy {
    /// Which it is.
    pub(crate) fn workload(&self) -> &WorkloadId {
        &self.0.workload
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The healthy containers of one variant.
#[derive(Clone, Debug)]
pub struct VariantRoute {
    pub name: String,
    /// Relative share of the traffic (CC-59).
    pub weight: f64,
    pub targets: Vec<Arc<Target>>,
    /// Where requests and answers are kept, if they are (CC-60).
    pub capture: Option<Arc<Capture>>,
    /// Requests that it takes at once, where it is serverless.
    pub most: Option<usize>,
}

/// One endpoint's routes.
#[derive(Clone, Debug)]
pub struct EndpointRoutes {
    /// The endpoint's name in the exact case InvokeEndpoint needs (SM-8).
    pub name: String,
    pub variants: Vec<VariantRoute>,
    /// Its requests come by its queue alone (SM-55).
    pub asynchronous: bool,
    /// The fleet that part of the traffic has moved to, during an update in steps (SM-24).
    pub shifted: Option<Shifted>,
}

/// The new fleet of an update.
#[derive(Clone, Debug)]
pub struct Shifted {
    /// Its part of the traffic, in ten-thousandths.
    pub share: u32,
    pub variants: Vec<VariantRoute>,
}

impl EndpointRoutes {
    /// The variants that are to serve a request, and those that do where the first cannot.
    fn sides(&self, chance: u64) -> (&[VariantRoute], &[VariantRoute]) {
        let Some(shifted) = &self.shifted else {
            return (&self.variants, &[]);
        };
        // The low bits choose the variant, so the lot is drawn from a mixture of all bits.
        let lot = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        if (lot.saturating_mul(u64::from(takeover::WHOLE))) >> 32 < u64::from(shifted.share) {
            (&shifted.variants, &self.variants)
        } else {
            (&self.variants, &shifted.variants)
        }
    }
}

/// Why no container was picked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// No such endpoint, or it does not serve.
    #[error("the endpoint does not serve")]
    NotServing,
    /// The target variant does not exist (SM-50).
    #[error("there is no variant {0}")]
    UnknownVariant(String),
    /// All weights are 0 (CC-59).
    #[error("no variant has a weight above 0")]
    NoWeight,
    /// The endpoint takes asynchronous requests alone (SM-55).
    #[error("the endpoint is asynchronous")]
    Asynchronous,
    /// A serverless variant runs as many requests as it may.
    #[error("too many requests at once")]
    Throttled,
    /// No container is healthy now (SM-58: ServiceUnavailable).
    #[error("no healthy container")]
    NoHealthyInstance,
}

/// A picked container; counts as a running request until dropped.
#[derive(Debug)]
pub struct Guard {
    target: Arc<Target>,
    variant: String,
    capture: Option<Arc<Capture>>,
    /// The loaded model that the request uses.
    model: Option<InUse>,
}

impl Guard {
    /// What the container has loaded, if it loads models one by one (CC-58).
    pub fn shelf(&self) -> Option<&Arc<Shelf>> {
        self.target.shelf.as_ref()
    }

    /// Keeps the model from being unloaded for as long as the request runs.
    pub fn hold(&mut self, model: InUse) {
        self.model = Some(model);
    }

    /// The container to dial, port 8080.
    pub fn workload(&self) -> &WorkloadId {
        &self.target.workload
    }

    /// The containers, where the instance has more than the one that [`Self::workload`] names.
    pub fn several(&self) -> Option<&Several> {
        self.target.several.as_deref()
    }

    /// Where the request and its answer are kept, if any are.
    pub fn capture(&self) -> Option<&Capture> {
        self.capture.as_deref()
    }

    /// Value of `x-Amzn-Invoked-Production-Variant` (SM-50).
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// `<variant>/<instance id>`: the log stream that ModelError names (SM-62).
    pub fn log_stream(&self) -> String {
        format!("{}/{}", self.variant, self.target.instance_id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.target.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All endpoints that serve.
#[derive(Default)]
pub struct Fleets {
    routes: RwLock<HashMap<Key, Arc<EndpointRoutes>, foldhash::fast::RandomState>>,
}

impl Fleets {
    /// Picks a container: the variant by weighted chance, or `target_variant`; within it the container with the fewest
    /// running requests. `chance` is any random number; `name` must have the endpoint's exact case (SM-8).
    ///
    /// # Errors
    /// See [`PickError`].
    pub fn pick(&self, key: &Key, name: &str, target_variant: Option<&str>, chance: u64) -> Result<Guard, PickError> {
        self.pick_for(key, name, target_variant, None, chance)
    }

    /// The same; of containers that load models one by one it prefers those that have loaded the one with this
    /// [`folder`](crate::many_models::folder).
    ///
    /// # Errors
    /// See [`PickError`].
    pub fn pick_for(
        &self,
        key: &Key,
        name: &str,
        target_variant: Option<&str>,
        model: Option<&str>,
        chance: u64,
    ) -> Result<Guard, PickError> {
        let table = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let routes = table
            .get(key)
            .filter(|routes| routes.name == name)
            .ok_or(PickError::NotServing)?;
        if routes.asynchronous {
            return Err(PickError::Asynchronous);
        }
        let (first, second) = routes.sides(chance);
        let variant = match (variant_of(first, target_variant, chance), second) {
            // During an update a fleet may have lost what the other still has.
            (Err(_), [_, ..]) => variant_of(second, target_variant, chance)
                .or_else(|_| variant_of(&routes.variants, target_variant, chance))?,
            (found, _) => found?,
        };
        if let Some(most) = variant.most {
            let running = variant.targets.iter().map(|target| target.in_flight());
            if running.sum::<usize>() >= most {
                return Err(PickError::Throttled);
            }
        }
        let loaded = model.and_then(|model| {
            let holds = |target: &&Arc<Target>| target.shelf.as_ref().is_some_and(|shelf| shelf.has(model));
            variant
                .targets
                .iter()
                .filter(holds)
                .min_by_key(|target| target.in_flight())
        });
        if let Some(target) = loaded {
            return Ok(guard(target, variant));
        }
        let least = variant
            .targets
            .iter()
            .map(|target| target.in_flight())
            .min()
            .ok_or(PickError::NoHealthyInstance)?;
        // Ties are broken by chance, or the first container would get every request of an idle endpoint.
        let tied: Vec<&Arc<Target>> = variant
            .targets
            .iter()
            .filter(|target| target.in_flight() <= least)
            .collect();
        let at = usize::try_from(chance >> 32)
            .unwrap_or(0)
            .checked_rem(tied.len())
            .unwrap_or(0);
        let target = tied
            .get(at)
            .copied()
            .or(variant.targets.first())
            .ok_or(PickError::NoHealthyInstance)?;
        Ok(guard(target, variant))
    }

    /// Replaces an endpoint's routes.
    pub fn publish(&self, key: &Key, routes: EndpointRoutes) {
        self.routes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), Arc::new(routes));
    }

    /// Takes an endpoint out of service.
    pub fn withdraw(&self, key: &Key) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The routes of an endpoint that serves.
    pub fn routes(&self, key: &Key) -> Option<Arc<EndpointRoutes>> {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }
}

/// The variant that serves a request: the one that it names, or one by weight.
fn variant_of<'a>(
    variants: &'a [VariantRoute],
    target: Option<&str>,
    chance: u64,
) -> Result<&'a VariantRoute, PickError> {
    let Some(wanted) = target else {
        return weighted(variants, chance);
    };
    let named = variants.iter().find(|variant| variant.name == wanted);
    let named = named.ok_or_else(|| PickError::UnknownVariant(wanted.into()))?;
    if named.targets.is_empty() {
        return Err(PickError::NoHealthyInstance);
    }
    Ok(named)
}

/// To be called while the table is still held: a route withdrawn after this moment sees the request.
fn guard(target: &Arc<Target>, variant: &VariantRoute) -> Guard {
    target.in_flight.fetch_add(1, Ordering::AcqRel);
    Guard {
        target: Arc::clone(target),
        variant: variant.name.clone(),
        capture: variant.capture.clone(),
        model: None,
    }
}

/// Picks among the variants that have a weight and a healthy container, so that a variant that is down costs no
/// requests while another can serve.
fn weighted(variants: &[VariantRoute], chance: u64) -> Result<&VariantRoute, PickError> {
    if !variants.iter().any(|variant| variant.weight > 0.0) {
        return Err(PickError::NoWeight);
    }
    let able = || {
        variants
            .iter()
            .filter(|variant| variant.weight > 0.0 && !variant.targets.is_empty())
    };
    let total: f64 = able().map(|variant| variant.weight).sum();
    // 32 bits of chance give shares exact to one in four billion.
    let share = f64::from(u32::try_from(chance & u64::from(u32::MAX)).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0);
    let mut left = share * total;
    let mut last = None;
    for variant in able() {
        if left < variant.weight {
            return Ok(variant);
        }
        left -= variant.weight;
        last = Some(variant);
    }
    last.ok_or(PickError::NoHealthyInstance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_model::Scope;

    fn key() -> Key {
        let scope = Scope {
            account: "123456789012".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        Key::folded(&scope, "Ep")
    }

    fn target(n: u8) -> Arc<Target> {
        Target::new(format!("w-{n:017x}").parse().unwrap(), format!("i-{n:017x}"))
    }

    fn route(name: &str, weight: f64, targets: Vec<Arc<Target>>) -> VariantRoute {
        VariantRoute {
            name: name.into(),
            weight,
            targets,
            capture: None,
            most: None,
        }
    }

    fn fleets(variants: Vec<VariantRoute>) -> Fleets {
        let fleets = Fleets::default();
        fleets.publish(
            &key(),
            EndpointRoutes {
                name: "Ep".into(),
                variants,
                asynchronous: false,
                shifted: None,
            },
        );
        fleets
    }

    /// A spread of 4096 chances over the low 32 bits.
    fn chances() -> impl Iterator<Item = u64> {
        (0..4096u64).map(|n| n << 20)
    }

    /// Proves: SM-50, CC-59
    #[test]
    fn traffic_is_shared_by_weight_and_a_zero_weight_gets_none() {
        let fleets = fleets(vec![
            route("a", 3.0, vec![target(1)]),
            route("b", 1.0, vec![target(2)]),
            route("off", 0.0, vec![target(3)]),
        ]);
        let mut count: HashMap<String, usize> = HashMap::new();
        for chance in chances() {
            *count
                .entry(fleets.pick(&key(), "Ep", None, chance).unwrap().variant().into())
                .or_default() += 1;
        }
        assert_eq!(count.get("a"), Some(&3072));
        assert_eq!(count.get("b"), Some(&1024));
        assert_eq!(count.get("off"), None);
        assert_eq!(
            fleets.pick(&key(), "Ep", Some("off"), 0).unwrap().variant(),
            "off",
            "a named target overrides"
        );
        assert_eq!(
            fleets.pick(&key(), "Ep", Some("none"), 0).unwrap_err(),
            PickError::UnknownVariant("none".into())
        );
    }

    /// Proves: SM-8, CC-59
    #[test]
    fn wrong_case_zero_weights_and_no_healthy_container_are_told_apart() {
        let zero = fleets(vec![route("a", 0.0, vec![target(1)])]);
        assert_eq!(zero.pick(&key(), "Ep", None, 0).unwrap_err(), PickError::NoWeight);
        let down = fleets(vec![route("a", 1.0, vec![])]);
        assert_eq!(
            down.pick(&key(), "Ep", None, 0).unwrap_err(),
            PickError::NoHealthyInstance
        );
        let up = fleets(vec![route("a", 1.0, vec![target(1)])]);
        assert!(up.pick(&key(), "Ep", None, 0).is_ok(), "control");
        assert_eq!(up.pick(&key(), "eP", None, 0).unwrap_err(), PickError::NotServing);
        up.withdraw(&key());
        assert_eq!(up.pick(&key(), "Ep", None, 0).unwrap_err(), PickError::NotServing);
    }

    #[test]
    fn a_variant_that_is_down_costs_no_requests_while_another_serves() {
        let fleets = fleets(vec![route("down", 9.0, vec![]), route("up", 1.0, vec![target(1)])]);
        for chance in chances() {
            assert_eq!(fleets.pick(&key(), "Ep", None, chance).unwrap().variant(), "up");
        }
    }

    /// Proves: SM-24
    #[test]
    fn traffic_is_shared_between_two_fleets_of_an_update_and_each_stands_in_for_the_other() {
        let share = |share: u32, old: Vec<VariantRoute>, new: Vec<VariantRoute>| {
            let fleets = fleets(vec![]);
            let routes = EndpointRoutes {
                name: "Ep".into(),
                variants: old,
                asynchronous: false,
                shifted: Some(Shifted { share, variants: new }),
            };
            fleets.publish(&key(), routes);
            fleets
        };
        let count = |fleets: &Fleets, wanted: Option<&str>| {
            // Any random numbers: here those of a multiplicative generator.
            let mut chance = 1u64;
            let picks = (0..10_000).map(|_| {
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let guard = fleets.pick(&key(), "Ep", wanted, chance ^ (chance >> 29)).unwrap();
                usize::from(guard.workload().as_str().ends_with('2'))
            });
            picks.sum::<usize>()
        };
        let old = || vec![route("a", 1.0, vec![target(1)])];
        let new = || vec![route("a", 1.0, vec![target(2)])];
        for wanted in [None, Some("a")] {
            assert_eq!(count(&share(0, old(), new()), wanted), 0);
            let tenth = count(&share(1000, old(), new()), wanted);
            assert!((850..1150).contains(&tenth), "{tenth}");
            assert_eq!(count(&share(10_000, old(), new()), wanted), 10_000);
        }
        let dead = || vec![route("a", 1.0, vec![])];
        assert_eq!(count(&share(5000, dead(), new()), None), 10_000);
        assert_eq!(count(&share(5000, old(), dead()), None), 0);
        assert_eq!(count(&share(10_000, old(), dead()), Some("a")), 0);
        let both = share(5000, dead(), dead());
        assert_eq!(
            both.pick(&key(), "Ep", None, 0).unwrap_err(),
            PickError::NoHealthyInstance
        );
        let renamed = share(0, old(), vec![route("b", 1.0, vec![target(2)])]);
        assert_eq!(count(&renamed, Some("b")), 10_000, "a variant of the new fleet alone");
    }

    #[test]
    fn the_least_busy_container_is_picked_and_guards_count() {
        let (one, two) = (target(1), target(2));
        let fleets = fleets(vec![route("a", 1.0, vec![Arc::clone(&one), Arc::clone(&two)])]);
        let first = fleets.pick(&key(), "Ep", None, 0).unwrap();
        let second = fleets.pick(&key(), "Ep", None, 0).unwrap();
        assert_ne!(first.workload(), second.workload());
        assert_eq!((one.in_flight(), two.in_flight()), (1, 1));
        drop(first);
        drop(second);
        assert_eq!((one.in_flight(), two.in_flight()), (0, 0));
    }
}
