//! From a command to what it does.

use super::config::{Config, LogFormat};
use super::{Command, Exit, NodeArgs, ServeArgs, Settings};
use crate::layout::{DEFAULT_PROFILE, read_credentials};
use crate::serve::Server;
use crate::supervise::NodeDir;
use anyhow::Context;
use isolarium_model::AccountId;
use isolarium_node::{LocalHost, NodeClient, NodeHost, confine};
use isolarium_runtime::local::{LocalConfig, OciChoice, Walls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Writes to standard output; a reader that went away is no failure.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a line to standard error; when even that fails there is nobody to tell.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub(super) fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(args) => serve(args),
        Command::Node(args) => node(args),
        Command::Doctor { settings, vpcs, json } => {
            let config = settings.load(&[])?;
            if vpcs {
                return super::doctor::vpcs(&config, json);
            }
            let local = local_config(&config, &config.data_dir, service_user(&config)?)?;
            super::doctor::doctor(&config, local, json)
        }
        Command::Env { account, settings } => env(account.as_ref(), &settings),
        Command::Report {
            target,
            flows,
            json,
            settings,
        } => super::report::report(target, flows, json, &settings),
        Command::Top { once, json, settings } => super::top::top(once, json, &settings),
        Command::ExplainDenied {
            request_id,
            json,
            settings,
        } => super::denied::explain(&request_id, json, &settings),
        Command::AuditLog(command) => super::audit_log::audit_log(command),
        Command::Image(command) => super::image_command::image(command),
        Command::Account(command) => super::operator::account(command),
        Command::User(command) => super::operator::user(command),
        Command::Product(command) => super::operator::product(command),
        Command::Proxy {
            refusals,
            json,
            account,
            settings,
        } => super::proxy::proxy(refusals, json, account.as_ref(), &settings),
        Command::Vpc(command) => super::vpc::vpc(command),
        Command::Ca { settings, pem } => ca(&settings, pem),
        Command::Teardown(settings) => teardown(&settings),
        // Answered before the command line is read.
        Command::Shim | Command::Unpack | Command::Tunnel => Ok(Exit::Usage),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut super::command(), "isolarium", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Success)
        }
        Command::Reference { page: _ } => {
            print(&super::config::keys::reference())?;
            Ok(Exit::Success)
        }
    }
}

fn env(account: Option<&AccountId>, settings: &Settings) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let (id, secret) = root_key(&config, account)?;
    print(&exports(
        &crate::layout::server_url(&config.data_dir, config.listen),
        &id,
        &secret,
        config.default_region().as_str(),
    ))?;
    Ok(Exit::Success)
}

/// An account's root key in `DIR/credentials`; the default account's where none is named.
pub(super) fn root_key(config: &Config, account: Option<&AccountId>) -> anyhow::Result<(String, String)> {
    let path = config.data_dir.join("credentials");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}; has `isolarium serve` been started once, by you?",
            path.display()
        )
    })?;
    let profile = account
        .filter(|account| **account != config.account)
        .map_or(DEFAULT_PROFILE, AccountId::as_str);
    read_credentials(&text, profile).with_context(|| {
        format!(
            "{} has no profile named {profile}; `isolarium account list` shows the accounts there are",
            path.display()
        )
    })
}

fn exports(url: &str, id: &str, secret: &str, region: &str) -> String {
    format!(
        "export AWS_ENDPOINT_URL={url}\nexport AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}\n\
         export AWS_DEFAULT_REGION={region}\nunset AWS_SESSION_TOKEN AWS_PROFILE\n"
    )
}

fn ca(settings: &Settings, pem: bool) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let folder = config.data_dir.join("ca");
    let certificate = folder.join("ca.pem");
    let text = std::fs::read_to_string(&certificate)
        .with_context(|| format!("cannot read {}; start the server once", certificate.display()))?;
    print(&if pem {
        text
    } else {
        format!("{}\n", folder.join("bundle.pem").display())
    })?;
    Ok(Exit::Success)
}

/// The child's command line: the same settings, and the node to use.
fn child_arguments(args: &ServeArgs, root: &Path, socket: &Path) -> Vec<OsString> {
    let mut line: Vec<OsString> = [
        "serve".into(),
        "--data-dir".into(),
        root.into(),
        "--node".into(),
        socket.into(),
    ]
    .into();
    let mut add = |flag: &str, value: OsString| line.extend([flag.into(), value]);
    if let Some(file) = &args.settings.config {
        add("--config", file.into());
    }
    for setting in &args.settings.set {
        add("--set", setting.into());
    }
    for (flag, value) in [
        ("--listen", &args.listen),
        ("--tls-listen", &args.tls_listen),
        ("--proxy-listen", &args.proxy_listen),
    ] {
        if let Some(value) = value {
            add(flag, value.into());
        }
    }
    line
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .with_context(|| format!("log.filter = {:?} is not a filter", config.log.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

fn serve_config(args: &ServeArgs) -> anyhow::Result<Config> {
    let node = args.node.as_ref().map(|path| path.to_string_lossy().into_owned());
    let flags = [
        ("--listen", "listen", args.listen.clone()),
        ("--tls-listen", "tls_listen", args.tls_listen.clone()),
        ("--proxy-listen", "proxy_listen", args.proxy_listen.clone()),
        ("--node", "serve.node", node),
    ];
    Ok(args.settings.load(&flags)?)
}

/// Lets this process have as many files open as the host allows. Shells and service managers begin with some 1,000, which
/// a thousand silent connections would use up; every request that opens a file failed then.
fn open_as_many_files_as_allowed() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).context("cannot raise the number of open files")
}

fn serve(args: ServeArgs) -> anyhow::Result<Exit> {
    let mut config = serve_config(&args)?;
    log_to_stderr(&config)?;
    open_as_many_files_as_allowed()?;
    let root = rustix::process::geteuid().is_root();
    match (config.serve.node.clone(), root) {
        (None, true) => supervise(&args, &config),
        (Some(socket), _) => {
            let mut socket = std::path::absolute(socket)?;
            if root {
                // The only thread so far: what follows has no privilege and no way back to one.
                let data_dir = config
                    .data_dir
                    .canonicalize()
                    .with_context(|| config.data_dir.display().to_string())?;
                let (uid, gid) = service_user(&config)?;
                let view = confine::become_service(&data_dir, uid, gid)?;
                if let Ok(inside) = socket.strip_prefix(&data_dir) {
                    socket = view.join(inside);
                }
                config.data_dir = view;
            }
            let client = Arc::new(NodeClient::new(&socket));
            let lifeline = client.clone();
            serve_here(config, Some(client), move || lifeline.wait_until_gone())
        }
        (None, false) => {
            complain(
                "isolarium: not root and no node process (--node): the API, S3 and the registry work; training jobs and \
                 endpoints are accepted and fail",
            );
            // Nobody else to outlive.
            serve_here(config, None, || {
                loop {
                    std::thread::park();
                }
            })
        }
    }
}

fn service_user(config: &Config) -> anyhow::Result<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Ok(confine::service_user(&passwd, &config.serve.user)?)
}

/// Who started the engine, also through sudo: the owner of `DIR/credentials`.
fn starter() -> (u32, u32) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    number("SUDO_UID").zip(number("SUDO_GID")).unwrap_or(own)
}

fn local_config(config: &Config, data_dir: &Path, (uid, gid): (u32, u32)) -> anyhow::Result<LocalConfig> {
    Ok(LocalConfig {
        data_dir: data_dir.into(),
        service_uid: uid,
        service_gid: gid,
        oci: config.runtime.oci.clone().map_or(OciChoice::Auto, OciChoice::Path),
        self_exe: std::env::current_exe().context("cannot find the program itself")?,
        archive_timeout: config.runtime.archive_timeout.duration(),
        cdi_folders: config.runtime.cdi_folders.clone(),
        accelerators: config.runtime.accelerators.clone(),
        walls: Walls::default(),
    })
}

fn local_host(config: &Config, dir: &NodeDir, user: (u32, u32)) -> anyhow::Result<LocalHost> {
    // Folders of images and models keep the modes they say, for every user of a container; what nobody else on the host
    // may see lies below folders that say so.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    LocalHost::open(
        local_config(config, dir.root(), user)?,
        starter(),
        config.host_network(),
    )
    .context("this host cannot run containers; `isolarium doctor` says what to do")
}

/// The privileged half with its child.
fn supervise(args: &ServeArgs, config: &Config) -> anyhow::Result<Exit> {
    let user = service_user(config)?;
    let dir = NodeDir::open(&config.data_dir, user.0, user.1)?;
    let socket = dir.socket();
    dir.answer(&socket, Arc::new(local_host(config, &dir, user)?))?;
    let program = std::env::current_exe().context("cannot find the program itself")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments = child_arguments(args, dir.root(), &socket);
    Ok(Exit::Child(
        runtime.block_on(crate::supervise::keep_serving(&program, &arguments))?,
    ))
}

fn node(args: NodeArgs) -> anyhow::Result<Exit> {
    let config = args.settings.load(&[])?;
    log_to_stderr(&config)?;
    open_as_many_files_as_allowed()?;
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("the node process makes namespaces, mounts and cgroups; run it as root");
    }
    let user = service_user(&config)?;
    let dir = NodeDir::open(&config.data_dir, user.0, user.1)?;
    dir.answer(
        &std::path::absolute(&args.socket)?,
        Arc::new(local_host(&config, &dir, user)?),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(asked_to_stop())?;
    Ok(Exit::Success)
}

fn teardown(settings: &Settings) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    if !config.data_dir.exists() {
        return Ok(Exit::Success);
    }
    let user = service_user(&config)?;
    let dir = NodeDir::open(&config.data_dir, user.0, user.1)?;
    local_host(&config, &dir, user)?.teardown()?;
    Ok(Exit::Success)
}

async fn asked_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Serves until a signal, or until `gone` returns: then the process that started this one is no more.
fn serve_here(
    config: Config,
    host: Option<Arc<dyn NodeHost>>,
    gone: impl FnOnce() + Send + 'static,
) -> anyhow::Result<Exit> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.serve.threads > 0 {
        builder.worker_threads(config.serve.threads);
    }
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async move {
        // Watched from the first moment, or an early signal would end the process without a drain.
        let asked = tokio::spawn(asked_to_stop());
        let (told, orphaned) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("lifeline".into()).spawn(move || {
            gone();
            // The receiver is gone only when the process ends anyway.
            let _ = told.send(());
        })?;
        let server = Server::start(config, host).await?;
        print(&format!("ready {}\n", server.url()))?;
        tokio::select! {
            asked = asked => asked??,
            _ = orphaned => {
                tracing::error!("the node process is gone; stopping at once");
                // No drain: nothing can be done for requests without a node, and the next pair waits for the data
                // directory. Everything on disk stands an end at any moment.
                std::process::exit(1);
            }
        }
        server.stop().await;
        Ok(Exit::Success)
    })
}
