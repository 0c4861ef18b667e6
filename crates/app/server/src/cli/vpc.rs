//! Commands about VPCs: standing in one.

use super::{Exit, Settings, run::complain};
use crate::layout::{DEFAULT_PROFILE, read_credentials};
use crate::operator::client::{AskError, converse};
use crate::operator::message::{Answer, Ask, HostLine};
use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use isolarium_runtime::program::{self, FileOf, Program, ProgramFailure, Root};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum VpcCommand {
    /// Run a command as a host in a subnet, where EC2 has instances
    ///
    /// The command has a network interface of its own in the subnet, with an address, security groups, routes, network ACL and
    /// flow logs as every interface has them, and asks the VPC's resolver for names. It sees no network of this machine, and no
    /// instance metadata. Terminal, standard streams and exit code are the command's; Ctrl-C and SIGTERM reach it. When it ends,
    /// however that comes, everything it left running ends too, and interface and address are given back.
    ///
    /// Without --rootfs it has the caller's files and rights: this is for commands that you trust. Run it as root.
    Exec(ExecArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Subnet of any account
    #[arg(long, value_name = "ID")]
    subnet: String,
    /// Security group of the subnet's VPC; give it once for each, five at most [default: the VPC's default group]
    #[arg(long = "security-group", value_name = "ID")]
    security_groups: Vec<String>,
    /// Run in this folder as root file system; what is written there goes to memory and is forgotten
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Give the command the root key of the subnet's account, the region and the engine's CA bundle as AWS_… variables, and no
    /// other AWS_… variable of the caller's
    #[arg(long)]
    env_from_engine: bool,
    #[command(flatten)]
    settings: Settings,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn vpc(command: VpcCommand) -> anyhow::Result<Exit> {
    match command {
        VpcCommand::Exec(args) => exec(args),
    }
}

/// Where a root folder finds the bundle, as containers do.
const BUNDLE: &str = "/opt/isolarium/ca-bundle.pem";

fn exec(args: ExecArgs) -> anyhow::Result<Exit> {
    let config = args.settings.load(&[])?;
    if !rustix::process::geteuid().is_root() {
        bail!("a network namespace is root's to enter; run isolarium vpc exec as root");
    }
    let data_dir = &config.data_dir;
    // The command's own directory may be another.
    let data_dir = &data_dir.canonicalize().unwrap_or_else(|_| data_dir.clone());
    let question = Ask::EnterSubnet {
        subnet: args.subnet,
        groups: args.security_groups,
    };
    let (host, lifeline) = match converse(data_dir, &question) {
        Ok((Answer::Entered { host }, lifeline)) => (host, lifeline),
        Ok(_) => bail!("the server answered another question; is it another version?"),
        Err(error @ AskError::NoServer { .. }) => {
            complain(&format!("isolarium: {:#}", anyhow!(error)));
            return Ok(Exit::NoServer);
        }
        Err(error) => return Err(error.into()),
    };
    let run_dir = data_dir.join("run");
    let netns = run_dir.join(format!("netns/{}.{}", host.vpc_id, host.interface_id));
    let mut files = names(&host);
    let mut environment = Vec::new();
    if args.env_from_engine {
        let bundle = data_dir.join("ca/bundle.pem");
        let bundle = bundle.canonicalize().with_context(|| bundle.display().to_string())?;
        let shown = match &args.rootfs {
            None => bundle,
            Some(_) => {
                let text = std::fs::read(&bundle).with_context(|| format!("cannot read {}", bundle.display()))?;
                files.push(file(BUNDLE, text, true));
                BUNDLE.into()
            }
        };
        environment = from_engine(data_dir, &host, host.account == config.account, &shown)?;
    }
    let ended = program::run(Program {
        netns: File::open(&netns)
            .with_context(|| {
                format!(
                    "cannot open {}; does the engine run in another mount namespace?",
                    netns.display()
                )
            })?
            .into(),
        hostname: hostname(&host),
        root: args.rootfs.map_or(Root::Own, Root::Folder),
        files,
        hidden: run_dir,
        command: args.command,
        environment,
        lifeline: lifeline.into(),
    });
    match ended {
        Ok(code) => Ok(Exit::Child(ExitCode::from(code))),
        Err(ProgramFailure::Unstartable { code, text }) => {
            complain(&format!("isolarium: {text}"));
            Ok(Exit::Child(ExitCode::from(code)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The name that EC2 gives an instance by its address.
fn hostname(host: &HostLine) -> String {
    format!("ip-{}", host.address.to_string().replace('.', "-"))
}

fn file(path: &str, text: impl Into<Vec<u8>>, needed: bool) -> FileOf {
    FileOf {
        path: path.into(),
        text: text.into(),
        needed,
    }
}

/// The files by which programs look names up: the host's own file and the VPC's resolver, nothing of this machine.
fn names(host: &HostLine) -> Vec<FileOf> {
    let name = hostname(host);
    let hosts = format!("127.0.0.1 localhost\n{} {name}\n", host.address);
    let mut resolver = String::new();
    if let Some(domain) = &host.search {
        let _infallible = writeln!(resolver, "search {domain}");
    }
    for server in &host.name_servers {
        let _infallible = writeln!(resolver, "nameserver {server}");
    }
    if host.name_servers.is_empty() {
        // Refused at once, where an empty file would mean a default.
        resolver.push_str("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    }
    vec![
        file("/etc/resolv.conf", resolver, true),
        file("/etc/hosts", hosts, false),
        file("/etc/hostname", format!("{name}\n"), false),
        file("/etc/nsswitch.conf", SOURCES, false),
    ]
}

/// Sources of names that go through a socket of this machine's are left out.
const SOURCES: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\n\
                       services: files\nethers: files\nrpc: files\n";

/// Variables of the AWS clients: the account's root, and whom to trust. Real names are resolved in the VPC, so no endpoint
/// is given.
fn from_engine(
    data_dir: &Path,
    host: &HostLine,
    default: bool,
    bundle: &Path,
) -> anyhow::Result<Vec<(OsString, Option<OsString>)>> {
    let path = data_dir.join("credentials");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let profile = if default {
        DEFAULT_PROFILE
    } else {
        host.account.as_str()
    };
    let (id, secret) = read_credentials(&text, profile)
        .with_context(|| format!("{} has no profile named {profile}", path.display()))?;
    let others = std::env::vars_os().map(|(name, _)| name);
    let others = others.filter(|name| name.to_string_lossy().starts_with("AWS_"));
    let mut all: Vec<(OsString, Option<OsString>)> = others.map(|name| (name, None)).collect();
    let given = [
        ("AWS_ACCESS_KEY_ID", id.as_str().into()),
        ("AWS_SECRET_ACCESS_KEY", secret.as_str().into()),
        ("AWS_DEFAULT_REGION", host.region.as_str().into()),
        ("AWS_REGION", host.region.as_str().into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("AWS_CA_BUNDLE", bundle.into()),
        ("SSL_CERT_FILE", bundle.into()),
        ("REQUESTS_CA_BUNDLE", bundle.into()),
    ];
    all.extend(given.map(|(name, value): (&str, OsString)| (name.into(), Some(value))));
    Ok(all)
}
