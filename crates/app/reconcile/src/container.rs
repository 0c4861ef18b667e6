//! From a record and its image to the launch spec of one container: command, environment, files, mounts, limits.

use crate::deps::Deps;
use crate::job::Site;
use crate::network;
use crate::settings::ReconcileSettings;
use crate::transfer::Image;
use isolarium_model::sagemaker::{Attachment, Placement};
use isolarium_model::{Arn, WorkloadId};
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use isolarium_runtime::executor::{LaunchSpec, Limits, Mount, ProcessSpec};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Scratch directories of a training job.
pub(crate) const MODEL: &str = "model";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const OUTPUT_DATA: &str = "output-data";
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// Scratch directory of a container that loads models one by one, and where it is inside (CC-58).
pub(crate) const MODELS: &str = "models";
pub(crate) const MODELS_INSIDE: &str = "/opt/ml/models";

/// Variables by which AWS clients find credentials. An isolated container gets none from image or platform, and the
/// two that lead to the platform's endpoint not even from the request (NI-8, CC-84).
const CREDENTIALS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
const CREDENTIAL_SOURCES: [&str; 4] = [
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// The operator's certificates in the work directory of a container with a way out, and inside it. The path is outside
/// of `/opt/ml`, whose contents the container contract lists.
pub(crate) const CA_BUNDLE: &str = "ca-bundle.pem";
const CA_BUNDLE_INSIDE: &str = "/opt/isolarium/ca-bundle.pem";

/// Variables by which AWS clients, OpenSSL (Python's own `ssl` too) and Python's requests find certificates.
const CA_VARIABLES: [&str; 3] = ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];

/// Directories of a notebook's work directory, and its scratch directory.
pub(crate) const METADATA: &str = "metadata";
pub(crate) const SCRIPTS: &str = "scripts";
pub(crate) const PROGRESS: &str = "lifecycle";
/// The program that runs lifecycle scripts, among them.
pub(crate) const START: &str = "start.sh";

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The instance type is not in the table; creation refuses such types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownInstanceType {
    #[error("the instance type {0} is not known")]
    Name(String),
    /// They were there when the job was accepted.
    #[error("{0} accelerators are not there")]
    Devices(u64),
}

/// The program of one instance of a job.
pub(crate) struct Program<'a> {
    pub argv: Vec<String>,
    /// The request's variables.
    pub environment: &'a BTreeMap<String, String>,
    /// The platform's variables, which win.
    pub platform: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
}

/// The mounts of a job's container (CC-2, CC-16): everything below /opt/ml is the platform's; parents come first.
pub(crate) fn job_mounts() -> Vec<Mount> {
    let scratch = |name: &str, target: &str| Mount::Scratch {
        name: name.into(),
        target: target.into(),
        read_only: false,
    };
    vec![
        scratch("ml", "/opt/ml"),
        Mount::Input {
            source: "input".into(),
            target: "/opt/ml/input".into(),
        },
        scratch(MODEL, "/opt/ml/model"),
        scratch(OUTPUT, "/opt/ml/output"),
        scratch(OUTPUT_DATA, "/opt/ml/output/data"),
    ]
}

/// The container of one instance of a job.
pub(crate) fn job(
    site: &Site<'_>,
    arn: &Arn,
    instance_type: &str,
    image: &Image,
    program: Program<'_>,
) -> Result<LaunchSpec, UnknownInstanceType> {
    let (deps, placement) = (site.deps, site.placement);
    let mut mounts = program.mounts;
    mounts.extend(ca_mount(&deps.settings, placement));
    Ok(LaunchSpec {
        process: process(
            program.argv,
            image,
            program.environment,
            program.platform,
            placement,
            &deps.settings,
        ),
        mounts,
        devices: devices(deps, &placement.workload, instance_type)?,
        ..base(deps, arn, placement, image, instance_type)?
    })
}

/// The interface that reaches the other containers of a job (CC-19); alone and isolated, loopback is all there is.
pub(crate) fn interface_name(placement: &Placement) -> &'static str {
    match placement.inner_address() {
        Some(_) => "eth0",
        None => "lo",
    }
}

/// What serves a model: one container of an endpoint or of a transform job.
pub(crate) struct Serving<'a> {
    pub placement: &'a Placement,
    /// The model's variables.
    pub environment: &'a BTreeMap<String, String>,
    /// The platform's variables, which win.
    pub platform: Vec<(String, String)>,
    pub instance_type: &'a str,
    pub model: ModelMount,
    /// Its part in an instance of several containers.
    pub part: Option<Part<'a>>,
}

/// One of several containers in the network namespace of an instance (CC-10, CC-56).
pub(crate) struct Part<'a> {
    pub hostname: &'a str,
    /// The first container; `None` for that one itself.
    pub beside: Option<&'a WorkloadId>,
    /// How many share the instance.
    pub of: usize,
    pub port: u16,
    /// Ports that nobody else of the instance uses, inclusive.
    pub safe_ports: (u16, u16),
}

/// Without this label an image of a model with several containers is refused: it would listen where it wants (CC-56).
pub(crate) const BINDS_TO_PORT: &str = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port";

/// Without this label an image is not started for a model of Mode MultiModel: it would not know what to load (CC-58).
pub(crate) const LOADS_MODELS: &str = "com.amazonaws.sagemaker.capabilities.multi-models";

/// The container that serves a model (CC-47, CC-48, CC-64).
pub(crate) fn serving(
    deps: &Deps,
    owner_arn: &Arn,
    serving: Serving<'_>,
    image: &Image,
) -> Result<LaunchSpec, UnknownInstanceType> {
    let placement = serving.placement;
    let argv = image.entrypoint.iter().cloned().chain(["serve".to_string()]).collect();
    let at = "/opt/ml/model".to_string();
    let mut mounts = vec![
        Mount::Scratch {
            name: "ml".into(),
            target: "/opt/ml".into(),
            read_only: false,
        },
        match serving.model {
            ModelMount::Archive => Mount::Scratch {
                name: MODEL.into(),
                target: at,
                read_only: true,
            },
            ModelMount::Objects => Mount::Input {
                source: MODEL.into(),
                target: at,
            },
            ModelMount::Many => Mount::Scratch {
                name: MODELS.into(),
                target: MODELS_INSIDE.into(),
                read_only: true,
            },
        },
    ];
    mounts.extend(ca_mount(&deps.settings, placement));
    let mut platform = serving.platform;
    if serving.model == ModelMount::Many {
        platform.push(("SAGEMAKER_MULTI_MODEL".into(), "true".into()));
    }
    let mut shared = base(deps, owner_arn, placement, image, serving.instance_type)?;
    let first = serving.part.as_ref().and_then(|part| part.beside);
    shared.devices = devices(deps, first.unwrap_or(&placement.workload), serving.instance_type)?;
    if let Some(part) = &serving.part {
        let (from, to) = part.safe_ports;
        platform.push(("SAGEMAKER_BIND_TO_PORT".into(), part.port.to_string()));
        platform.push(("SAGEMAKER_SAFE_PORT_RANGE".into(), format!("{from}-{to}")));
        if let Some(beside) = part.beside {
            shared.network.workload = beside.clone();
            shared.beside = Some(beside.clone());
        }
        shared.limits = share(&shared.limits, part.of);
    }
    Ok(LaunchSpec {
        hostname: serving.part.map_or("model", |part| part.hostname).into(),
        process: process(argv, image, serving.environment, platform, placement, &deps.settings),
        mounts,
        ..shared
    })
}

/// Where a notebook instance's home volume is (SM-46).
const HOME: &str = "/home/ec2-user/SageMaker";
/// What describes the instance to its scripts, as on AWS.
const METADATA_INSIDE: &str = "/opt/ml/metadata";
/// Scripts and the program that runs them.
const SCRIPTS_INSIDE: &str = "/opt/isolarium/scripts";
/// Where that program says how far it is.
const PROGRESS_INSIDE: &str = "/opt/isolarium/lifecycle";

/// A notebook instance's container.
pub(crate) struct Notebook<'a> {
    pub placement: &'a Placement,
    pub volume: &'a WorkloadId,
    pub region: &'a str,
    pub instance_type: &'a str,
    pub command: &'a [String],
    /// `RootAccess`.
    pub root: bool,
    /// There are lifecycle scripts, which run first, as root.
    pub scripted: bool,
}

/// The user of a notebook that may not be root, where its image names none but root.
const PLAIN_USER: &str = "1000:1000";

/// The container of a notebook instance (SM-46). Its files were staged below [`METADATA`] and [`SCRIPTS`].
pub(crate) fn notebook(
    deps: &Deps,
    owner_arn: &Arn,
    notebook: &Notebook<'_>,
    image: &Image,
) -> Result<LaunchSpec, UnknownInstanceType> {
    let placement = notebook.placement;
    let mut mounts = vec![
        Mount::Volume {
            volume: notebook.volume.clone(),
            target: HOME.into(),
        },
        Mount::Input {
            source: METADATA.into(),
            target: METADATA_INSIDE.into(),
        },
    ];
    mounts.extend(ca_mount(&deps.settings, placement));
    let program = match notebook.command {
        [] => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
        given => given.to_vec(),
    };
    let of_image = match image.user.split(':').next().unwrap_or_default() {
        "" | "0" | "root" => PLAIN_USER,
        _ => &image.user,
    };
    let user = if notebook.root { "0:0" } else { of_image };
    let (argv, first) = if notebook.scripted {
        mounts.push(Mount::Input {
            source: SCRIPTS.into(),
            target: SCRIPTS_INSIDE.into(),
        });
        mounts.push(Mount::Scratch {
            name: PROGRESS.into(),
            target: PROGRESS_INSIDE.into(),
            read_only: false,
        });
        let start = ["/bin/sh", &format!("{SCRIPTS_INSIDE}/{START}"), user].map(String::from);
        (start.into_iter().chain(program).collect(), "0:0")
    } else {
        (program, user)
    };
    let platform = ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| (name.to_string(), notebook.region.to_string()));
    let shared = base(deps, owner_arn, placement, image, notebook.instance_type)?;
    let own = process(
        argv,
        image,
        &BTreeMap::new(),
        platform.into(),
        placement,
        &deps.settings,
    );
    Ok(LaunchSpec {
        hostname: "notebook".into(),
        hosts: Vec::new(),
        process: ProcessSpec {
            user: first.into(),
            ..own
        },
        mounts,
        devices: devices(deps, &placement.workload, notebook.instance_type)?,
        ..shared
    })
}

/// The containers of an instance have its size together, and equal parts of it.
fn share(whole: &Limits, of: usize) -> Limits {
    let of = u64::try_from(of).unwrap_or(1).max(1);
    Limits {
        cpu_millis: whole.cpu_millis / of,
        memory_bytes: whole.memory_bytes / of,
        shm_bytes: whole.shm_bytes / of,
        ..whole.clone()
    }
}

/// Whether a container is shown the operator's certificates; then they must be staged (see `stage::ca_bundle`).
pub(crate) fn shown_bundle<'a>(settings: &'a ReconcileSettings, placement: &Placement) -> Option<&'a Path> {
    settings.ca_bundle.as_deref().filter(|_| placement.address().is_some())
}

fn ca_mount(settings: &ReconcileSettings, placement: &Placement) -> Option<Mount> {
    shown_bundle(settings, placement).map(|_| Mount::Input {
        source: CA_BUNDLE.into(),
        target: CA_BUNDLE_INSIDE.into(),
    })
}

/// Where a serving container's model files lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelMount {
    /// In the scratch directory that the archive was unpacked into; also when there is no model data.
    Archive,
    /// Linked objects in the work directory.
    Objects,
    /// In a scratch directory whose contents change while the container runs (CC-58).
    Many,
}

fn base(
    deps: &Deps,
    owner_arn: &Arn,
    placement: &Placement,
    image: &Image,
    instance_type: &str,
) -> Result<LaunchSpec, UnknownInstanceType> {
    let shape = deps
        .settings
        .instances
        .shape(instance_type)
        .ok_or_else(|| UnknownInstanceType::Name(instance_type.into()))?;
    let memory = shape.memory_mib << 20;
    let settings = &deps.settings;
    let network = network_of(deps, placement);
    Ok(LaunchSpec {
        workload: placement.workload.clone(),
        owner_arn: owner_arn.to_string(),
        hostname: String::new(),
        network: WorkloadNetwork {
            workload: placement.workload.clone(),
            reach: network.reach,
        },
        layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        process: ProcessSpec {
            argv: Vec::new(),
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
        },
        hosts: vec![(IpAddr::V4(network.own), vec!["algo-1".into()])],
        resolvers: network.resolvers,
        search: network.search,
        mounts: Vec::new(),
        held: false,
        beside: None,
        tunnel: None,
        encrypted: false,
        devices: Vec::new(),
        limits: Limits {
            cpu_millis: shape.vcpus * 1000,
            memory_bytes: memory,
            pids: settings.pids,
            shm_bytes: memory / 100 * settings.shm_percent,
            overlay_bytes: settings.overlay_bytes,
        },
    })
}

/// The accelerators of the instance whose first container is `workload`, noted before anything has them. The containers of an
/// instance share them.
fn devices(deps: &Deps, workload: &WorkloadId, instance_type: &str) -> Result<Vec<String>, UnknownInstanceType> {
    let count = deps.amount(instance_type)?.accelerators;
    if count == 0 {
        return Ok(Vec::new());
    }
    let own = deps
        .scheduler
        .devices(&deps.work, workload, count, &deps.settings.devices);
    let own = own.ok_or(UnknownInstanceType::Devices(count))?;
    match deps.work.note_devices(workload, &own) {
        Ok(()) => Ok(own),
        Err(error) => {
            tracing::error!(%workload, %error, "accelerators could not be noted");
            Err(UnknownInstanceType::Devices(count))
        }
    }
}

/// How a container reaches others, and whom it asks for names (CC-85, CC-86).
struct Network {
    reach: Reach,
    own: Ipv4Addr,
    resolvers: Vec<IpAddr>,
    search: Option<String>,
}

fn network_of(deps: &Deps, placement: &Placement) -> Network {
    let nothing = Network {
        reach: Reach::Nothing,
        own: Ipv4Addr::LOCALHOST,
        resolvers: Vec::new(),
        search: None,
    };
    match &placement.attachment {
        Attachment::Isolated | Attachment::Unattached { .. } => nothing,
        Attachment::Peers {
            network,
            interface,
            address,
        } => Network {
            reach: Reach::Peers {
                network: *network,
                interface: *interface,
            },
            own: *address,
            ..nothing
        },
        Attachment::Vpc(place) if let Some(network) = place.peers => Network {
            reach: Reach::Peers {
                network,
                interface: place.container,
            },
            own: place.address,
            ..nothing
        },
        // With a VPC, too, a lone isolated container has loopback alone: its address is configured nowhere (NET-69).
        Attachment::Vpc(_) if placement.isolated() => nothing,
        Attachment::ServiceNetwork { address, .. } => Network {
            reach: Reach::ServiceNetwork { address: *address },
            own: *address,
            resolvers: deps.settings.resolver.into_iter().collect(),
            search: None,
        },
        Attachment::Vpc(place) => {
            let vpc = deps.networks.known(place.vpc);
            let vpc = vpc.as_deref();
            Network {
                reach: Reach::Vpc {
                    vpc: place.vpc,
                    interface: place.container,
                },
                own: place.address,
                resolvers: vpc
                    .map(network::name_servers)
                    .unwrap_or_default()
                    .into_iter()
                    .map(IpAddr::V4)
                    .collect(),
                search: vpc.and_then(|vpc| vpc.dns.domain_name.clone()),
            }
        }
    }
}

/// CC-13: `train` replaces CMD and keeps ENTRYPOINT; a given entry point stands alone, given arguments replace `train`.
pub(crate) fn training_command(
    image: &Image,
    entrypoint: Option<&[String]>,
    arguments: Option<&[String]>,
) -> Vec<String> {
    command(image, &["train".to_string()], entrypoint, arguments)
}

/// CC-40: the image's own program, unless the request has another; a given entry point drops the image's arguments, given
/// arguments keep its entry point.
pub(crate) fn processing_command(
    image: &Image,
    entrypoint: Option<&[String]>,
    arguments: Option<&[String]>,
) -> Vec<String> {
    command(image, &image.cmd, entrypoint, arguments)
}

fn command(
    image: &Image,
    default: &[String],
    entrypoint: Option<&[String]>,
    arguments: Option<&[String]>,
) -> Vec<String> {
    match (entrypoint, arguments) {
        (None, None) => image.entrypoint.iter().chain(default).cloned().collect(),
        (Some(entrypoint), None) => entrypoint.to_vec(),
        (None, Some(arguments)) => image.entrypoint.iter().chain(arguments).cloned().collect(),
        (Some(entrypoint), Some(arguments)) => entrypoint.iter().chain(arguments).cloned().collect(),
    }
}

/// Image, then request, then platform: later entries win, so a request cannot replace the platform's own (CC-8).
fn process(
    argv: Vec<String>,
    image: &Image,
    requested: &BTreeMap<String, String>,
    platform: Vec<(String, String)>,
    placement: &Placement,
    settings: &ReconcileSettings,
) -> ProcessSpec {
    let credentials = placement.credentials_path();
    let isolated = credentials.is_none();
    let from_image = image.env.iter().filter(|(name, _)| {
        let key = isolated && CREDENTIALS.contains(&name.as_str());
        !key && !CREDENTIAL_SOURCES.contains(&name.as_str())
    });
    let from_request = requested
        .iter()
        .filter(|(name, _)| !CREDENTIAL_SOURCES.contains(&name.as_str()));
    let mut env: Vec<(String, String)> = Vec::new();
    if !image.env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    env.extend(from_image.cloned());
    if shown_bundle(settings, placement).is_some() {
        // After the image, whose own bundle does not know our authority; before the request, whose word is deliberate.
        env.extend(CA_VARIABLES.map(|name| (name.to_string(), CA_BUNDLE_INSIDE.to_string())));
    }
    env.extend(from_request.map(|(name, value)| (name.clone(), value.clone())));
    env.extend(platform);
    if let Some(path) = credentials {
        env.push(("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI".into(), path));
    }
    let cwd = if image.workdir.is_empty() {
        "/".to_string()
    } else {
        image.workdir.clone()
    };
    ProcessSpec {
        argv,
        env,
        cwd,
        user: image.user.clone(),
    }
}

#[cfg(test)]
mod tests;
