//! The table of all keys, and the reference page made of it.

use super::Config;

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct KeyDoc {
    /// Dotted name.
    pub name: &'static str,
    /// What can be written there.
    pub values: &'static str,
    /// What it does.
    pub text: &'static str,
}

impl KeyDoc {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("ISOLARIUM_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

const fn key(name: &'static str, values: &'static str, text: &'static str) -> KeyDoc {
    KeyDoc { name, values, text }
}

/// Every key, in the order of the reference page.
pub const KEYS: &[KeyDoc] = &[
    key(
        "data_dir",
        "path",
        "Where everything persists: state, buckets, images, logs, keys. One file system.",
    ),
    key(
        "listen",
        "address:port",
        "The port of all AWS services, the image registry and S3, in plain HTTP. Port 0 takes a free one.",
    ),
    key(
        "tls_listen",
        "address:port",
        "The same services over HTTPS, with certificates of the engine's own CA. Absent: none.",
    ),
    key(
        "proxy_listen",
        "address:port",
        "Be an HTTPS proxy here (CONNECT, and plain HTTP for S3) that leads the services' real names to this engine and refuses \
         everything else: a loopback address. `isolarium proxy` prints what clients need. Absent: none.",
    ),
    key(
        "account",
        "12 digits",
        "The default account; it owns unsigned requests and the root key in `credentials`.",
    ),
    key(
        "regions",
        "list of region names",
        "Regions that are served. A request signed for another region is refused. The first is the default.",
    ),
    key(
        "uplink",
        "`\"host\"`, `\"none\"` or `{ netns = \"PATH\" }`",
        "Where containers without network isolation find the internet: through the host's default route, nowhere, or in a network namespace.",
    ),
    key(
        "instances",
        "list of `{ type, vcpus, memory_mib, accelerators }`",
        "What instance types stand for on this machine, where that differs from the public tables: limits of their containers. Accelerators are devices of `runtime.accelerators`.",
    ),
    key(
        "auth.unknown_keys",
        "`\"reject\"` or `\"root\"`",
        "`root` takes every unknown access key for the default account's root, without checking the signature: for test suites alone, and refused unless every listener is loopback.",
    ),
    key(
        "auth.clock_skew",
        "duration",
        "How far the time of a signature may be from the engine's.",
    ),
    key(
        "auth.s3_presigned_v2",
        "boolean",
        "Accept presigned S3 URLs with signature version 2, which some clients still make by default.",
    ),
    key(
        "tls.inject_ca",
        "boolean",
        "Show a CA bundle (the host's public roots and the engine's authority) to containers without network isolation, read-only at /opt/isolarium/ca-bundle.pem, and point AWS_CA_BUNDLE, SSL_CERT_FILE and REQUESTS_CA_BUNDLE to it unless the request sets them. Isolated containers get neither: they can reach nobody to trust.",
    ),
    key(
        "network.platform",
        "IPv4 range",
        "Addresses of containers without network isolation and without VPC.",
    ),
    key(
        "network.services",
        "IPv4 range",
        "Addresses at which containers find the public service names.",
    ),
    key(
        "network.s3_prefix_list",
        "IPv4 range",
        "Addresses at which containers find S3: the prefix list of gateway endpoints.",
    ),
    key(
        "network.uplink_links",
        "IPv4 range",
        "Link addresses towards the uplink.",
    ),
    key(
        "network.elastic_ips",
        "IPv4 range",
        "Public addresses of VPCs: Elastic IPs, those of NAT gateways included. A network namespace as uplink gets a route to them; through the host nobody outside sees them.",
    ),
    key(
        "network.nat_idle_timeout",
        "duration",
        "Time after its last packet at which a NAT gateway drops a TCP connection, 1 s to a day. The sender's next packet is answered by a reset.",
    ),
    key(
        "ec2.default_vpc",
        "boolean",
        "Make the default VPC (172.31.0.0/16, one public subnet per zone) of the default account in every served region at start. One that was deleted does not come back.",
    ),
    key(
        "ec2.zones",
        "small letters",
        "Letters of the Availability Zones of every region: `abc` makes `us-east-1a` to `us-east-1c`.",
    ),
    key(
        "ec2.vpcs",
        "number",
        "VPCs, and internet gateways, of an account in a region.",
    ),
    key("ec2.subnets_per_vpc", "number", "Subnets of a VPC."),
    key(
        "ec2.routes_per_table",
        "number",
        "Routes of a route table, without the local ones.",
    ),
    key(
        "ec2.gateway_endpoints",
        "number",
        "Gateway endpoints of an account in a region.",
    ),
    key(
        "ec2.interface_endpoints_per_vpc",
        "number",
        "Interface endpoints of a VPC.",
    ),
    key("ec2.elastic_ips", "number", "Elastic IPs of an account in a region."),
    key(
        "ec2.nat_gateways_per_zone",
        "number",
        "NAT gateways of an account in an Availability Zone.",
    ),
    key(
        "ec2.notebook_endpoints",
        "boolean",
        "Whether interface endpoints for notebook instances (`aws.sagemaker.REGION.notebook`) can be made.",
    ),
    key(
        "ec2.runtime_zone_rule",
        "boolean",
        "Whether private DNS knows the Runtime's name only in the Availability Zones where its endpoint has an interface.",
    ),
    key(
        "limits.request_body",
        "bytes",
        "Largest body of a JSON, query or CBOR request. S3 and the registry stream and have no limit here.",
    ),
    key(
        "limits.invoke_body",
        "bytes",
        "Largest body of an invocation, and of a buffered answer.",
    ),
    key(
        "limits.request_head",
        "bytes",
        "Largest request head (request line and headers); at least 8192.",
    ),
    key(
        "limits.head_timeout",
        "duration",
        "How long a client may take to send a request's head.",
    ),
    key(
        "limits.body_idle_timeout",
        "duration",
        "How long a request body may pause.",
    ),
    key(
        "limits.connections",
        "number",
        "Client connections at one time; more wait.",
    ),
    key(
        "limits.training_instances",
        "number",
        "Training instances of one type that an account may run at one time. Absent: no limit.",
    ),
    key(
        "capacity.vcpus",
        "number or `\"host\"`",
        "vCPUs that instances of jobs and endpoints may hold together, counted as their types declare them; `host` is what the machine has, a number above that over-commits. Jobs wait while there are not enough. Absent: no limit, containers share what there is.",
    ),
    key(
        "capacity.memory_mib",
        "number or `\"host\"`",
        "The same for memory, in MiB.",
    ),
    key(
        "capacity.account_percent",
        "number",
        "How much of the capacity one account may hold, 1 to 100.",
    ),
    key(
        "capacity.endpoint_wait",
        "duration",
        "How long new instances of an endpoint may wait for room before they fail with InsufficientInstanceCapacity.",
    ),
    key(
        "invoke.timeout",
        "duration",
        "How long a container may take to answer an invocation.",
    ),
    key(
        "invoke.stream_timeout",
        "duration",
        "How long a streamed answer may take in all.",
    ),
    key(
        "invoke.connect_timeout",
        "duration",
        "How long a container may take to accept a connection.",
    ),
    key(
        "invoke.idle_connections",
        "number",
        "Idle connections that each lane keeps to each container.",
    ),
    key(
        "jobs.stop_grace",
        "duration",
        "Time between SIGTERM and SIGKILL when a training or processing job is stopped.",
    ),
    key(
        "jobs.checkpoint_interval",
        "duration",
        "Time between uploads of changed checkpoints and of continuous outputs of processing jobs.",
    ),
    key(
        "endpoints.ping_interval",
        "duration",
        "Time between health checks of a container.",
    ),
    key(
        "endpoints.ping_timeout",
        "duration",
        "How long a health check may take.",
    ),
    key(
        "endpoints.startup_timeout",
        "duration",
        "How long a container may take to pass its first health check, where the request gives no time.",
    ),
    key(
        "endpoints.ping_failures",
        "number",
        "Failed health checks in a row after which a container is replaced.",
    ),
    key(
        "endpoints.restart_backoff",
        "duration",
        "First wait before a failed container is started again; doubles with each failure.",
    ),
    key(
        "endpoints.restart_backoff_max",
        "duration",
        "Longest wait before a failed container is started again.",
    ),
    key(
        "endpoints.drain",
        "duration",
        "How long a container that is being replaced may finish its requests.",
    ),
    key(
        "endpoints.stop_grace",
        "duration",
        "Time between SIGTERM and SIGKILL when a container of an endpoint is stopped.",
    ),
    key(
        "endpoints.capture_interval",
        "duration",
        "How long captured data of an endpoint waits for more before it is delivered.",
    ),
    key(
        "endpoints.updates",
        "`\"blue-green\"`, `\"in-place-when-full\"` or `\"in-place\"`",
        "What becomes of an endpoint's old containers while an update starts the new ones. `blue-green`: they serve until the new ones are healthy beside them, and no request is lost (while a rolling update is rolled back there are fewer of them). `in-place`: they are taken down first, for machines without room for two fleets; requests in the gap are answered with 503, and where the new ones do not come up the old ones are started again. `in-place-when-full`: so only where `capacity` leaves no room for both. Images and models are fetched before anything is taken down.",
    ),
    key(
        "credentials.lifetime",
        "duration",
        "How long the credentials of an execution role are valid.",
    ),
    key(
        "credentials.refresh_before",
        "duration",
        "How long before their end the container-credentials endpoint hands out new ones.",
    ),
    key(
        "resolver.upstream",
        "list of address:port",
        "Name servers for names that are not services, asked from the uplink. Empty: the uplink's own.",
    ),
    key(
        "resolver.timeout",
        "duration",
        "How long a name server may take to answer.",
    ),
    key(
        "flow_logs.read",
        "duration",
        "Pause between two reads of what passed in VPCs that have flow logs or run jobs.",
    ),
    key(
        "flow_logs.minute",
        "duration",
        "What an aggregation interval of 60 seconds lasts; one of 600 lasts ten times as long.",
    ),
    key(
        "metrics.listen",
        "address:port",
        "`GET /metrics` for Prometheus, in plain HTTP without authentication: a loopback address. Absent: none.",
    ),
    key(
        "metrics.interval",
        "duration",
        "Pause between two times at which counts of invocations are put into CloudWatch's metrics of their endpoint.",
    ),
    key(
        "serve.node",
        "path",
        "Socket of a node process that was started apart. Absent: `serve` started as root starts one itself.",
    ),
    key("serve.drain", "duration", "How long requests may go on after SIGTERM."),
    key(
        "serve.user",
        "user name",
        "The unprivileged user the serving process runs as, by its name in /etc/passwd; uid 64900 where there is no user `isolarium`. A data directory belongs to the user it was made for.",
    ),
    key(
        "serve.threads",
        "number",
        "Threads that serve requests; 0 takes the number of CPUs.",
    ),
    key(
        "runtime.oci",
        "path",
        "The OCI runtime. Absent: `crun` or `runc`, whichever works on this host.",
    ),
    key("runtime.pids", "number", "Most processes and threads in one container."),
    key("runtime.overlay_bytes", "bytes", "Size of a container's writable root."),
    key(
        "runtime.shm_percent",
        "number",
        "Size of /dev/shm in percent of a container's memory.",
    ),
    key(
        "runtime.archive_timeout",
        "duration",
        "How long one image layer, model archive, checkpoint or output archive may take to be unpacked or packed.",
    ),
    key(
        "runtime.cdi_folders",
        "list of paths",
        "Folders with files of the Container Device Interface, which say what a container needs to use a device; the later folder wins. Only root may write there.",
    ),
    key(
        "runtime.accelerators",
        "`vendor/class`",
        "The kind of CDI devices that instance types with accelerators are matched to. A type that asks for more than there are is refused; devices in use are waited for.",
    ),
    key(
        "images.managed_accounts",
        "list of 12 digits",
        "Accounts whose registries count as the platform's own, besides the built-in ones: some of their images cannot be isolated.",
    ),
    key(
        "images.aliases",
        "list of `{ account, repository, tag, image }`",
        "Images of the engine's own registry that run in place of others: `repository` and `tag` are patterns with `*` and `?` (`tag` absent: any), `image` is what runs. Without `account` only registries of managed accounts are meant. The first row that fits counts; descriptions go on showing the name that was asked for.",
    ),
    key(
        "images.unisolated",
        "list of `{ family, repository }`",
        "Repositories of managed registries, besides the built-in ones, whose images need S3 while they run: isolation is refused for them.",
    ),
    key(
        "notebooks.image",
        "image reference",
        "The Jupyter image that every notebook instance runs, of the engine's own registry; whoever may make a notebook instance may run it. Absent: there are none, and CreateNotebookInstance says so.",
    ),
    key(
        "notebooks.command",
        "list of text",
        "The program of notebook instances, such as `[\"jupyter\", \"lab\", \"--ip=127.0.0.1\", \"--port=8888\", \"--no-browser\", \"--allow-root\", \"--ServerApp.token=\", \"--ServerApp.allow_remote_access=True\", \"--ServerApp.root_dir=/home/ec2-user/SageMaker\"]`: the engine decides who gets in. Empty: the image's own.",
    ),
    key(
        "notebooks.port",
        "port",
        "Where the notebook server listens inside its container; loopback is enough.",
    ),
    key(
        "notebooks.lifecycle_timeout",
        "duration",
        "How long each lifecycle script may run before the notebook instance fails.",
    ),
    key(
        "notebooks.origin",
        "`http://NAME:PORT` or `https://NAME:PORT`",
        "How browsers reach this engine: presigned URLs are then `http://NOTEBOOK.notebook.REGION.NAME:PORT`. Browsers take every name below `localhost` for this machine: `http://localhost:4599`. Absent: AWS's form, `https://NOTEBOOK.notebook.REGION.sagemaker.aws`, for which the client's name service must have the engine's address.",
    ),
    key(
        "reconcile.workers",
        "number",
        "Threads that carry out the steps of jobs and endpoints; transfers inside the engine block them.",
    ),
    key(
        "reconcile.vpc_workers",
        "number",
        "Threads that carry out steps which may move data through a VPC. How long those last is up to whoever answers there.",
    ),
    key(
        "reconcile.vpc_workers_per_account",
        "number",
        "How many of these threads one account may hold; its other steps of that kind wait for them.",
    ),
    key(
        "reconcile.transfer_limit",
        "duration",
        "How long one step of a job or endpoint may move data through a VPC: its inputs, its output, one synchronisation of checkpoints.",
    ),
    key(
        "reconcile.retry",
        "duration",
        "Wait before a step that failed for a reason of the host is repeated.",
    ),
    key(
        "reconcile.log_interval",
        "duration",
        "Least time between two reads of one container's output.",
    ),
    key(
        "reconcile.gc_interval",
        "duration",
        "Time between searches for left-overs.",
    ),
    key(
        "audit.retention",
        "duration",
        "How long events stay in the audit trail; whole files leave. LookupEvents tells of 90 days at most.",
    ),
    key(
        "audit.sync_interval",
        "duration",
        "How often the audit trail is brought from the kernel to the disk. What a power failure can take is no older; `0s` does it before every answer to a change.",
    ),
    key(
        "audit.queue_bytes",
        "bytes",
        "Memory for events that wait to be written to the audit trail.",
    ),
    key("log.filter", "text", "What is logged, as `level` or `crate=level,…`."),
    key("log.format", "`\"text\"` or `\"json\"`", "How log lines look."),
];

/// Whether the dotted `name` is a key.
pub(super) fn is_known(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name)
}

/// The default of a key as TOML; `None` when it has none.
pub fn default_of(name: &str) -> Option<String> {
    let all = toml::Value::try_from(Config::default()).ok()?;
    let found = name.split('.').try_fold(&all, |at, part| at.get(part))?;
    Some(found.to_string())
}

/// The text of `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Made by `isolarium reference configuration`; edit the table in the source instead of this page.\n\n\
         Settings come from four places; later ones win: the defaults below, the TOML file given by `--config` (or \
         `ISOLARIUM_CONFIG`), environment variables, flags. A key's variable is `ISOLARIUM_` and its name in capitals, \
         with underscores for dots: `auth.unknown_keys` is `ISOLARIUM_AUTH_UNKNOWN_KEYS`. As a flag, every key is \
         `--set KEY=VALUE`; `--data-dir`, `--listen`, `--tls-listen` and `--node` are short for theirs. Values are TOML; \
         quotes around plain text may be left out in variables and flags.\n\n\
         A key that is not listed here is an error that names its line. Durations are written `250ms`, `5s`, `2m`, `1h`, or \
         as a number of seconds.\n\n\
         | key | value | default | meaning |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let default = default_of(key.name).map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
        let name = key.name;
        page.push_str(&format!("| `{name}` | {} | {default} | {} |\n", key.values, key.text));
    }
    page.push_str(
        "\nExample:\n\n```toml\ndata_dir = \"/var/lib/isolarium\"\nlisten = \"127.0.0.1:4599\"\nuplink = \"none\"\n\n\
         [endpoints]\nping_interval = \"5s\"\n```\n",
    );
    page
}
