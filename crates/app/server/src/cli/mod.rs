//! The command line: what can be typed, and what each command answers.

mod audit_log;
pub mod config;
mod denied;
mod doctor;
pub mod image;
mod image_command;
mod operator;
mod proxy;
mod report;
mod run;
mod top;
mod vpc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use config::{Config, ConfigError, Override};
use isolarium_model::AccountId;
use std::path::PathBuf;
use std::process::ExitCode;

/// How a command ended, as the shell sees it. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exit {
    /// Done.
    Success,
    /// It failed, or what was asked for is not there, or (`doctor`) a workload could not run.
    Failure,
    /// The command line or the configuration is wrong; nothing was done.
    Usage,
    /// No running server answers for the data directory.
    NoServer,
    /// The serving half ended like this.
    Child(ExitCode),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NoServer => 3,
            Exit::Child(code) => return code,
        })
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the command failed, what was asked for does not exist, or `doctor` found that no workload could run
  2  the command line or the configuration is wrong; nothing was done
  3  no running server answers for the data directory

Settings come from the defaults, the file given by --config, ISOLARIUM_… variables and flags; later ones win.
docs/configuration.md lists every key.";

/// A self-hosted engine for the SageMaker API whose containers are sealed by the kernel.
#[derive(Debug, Parser)]
#[command(name = "isolarium", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the settings come from.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Configuration file (TOML); unknown keys are errors
    #[arg(long, value_name = "FILE", env = "ISOLARIUM_CONFIG")]
    config: Option<PathBuf>,
    /// Directory where everything persists [default: /var/lib/isolarium]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Any configuration key, such as auth.clock_skew=5m; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server: all services on one port
    ///
    /// Started as root, it runs two processes: one that holds the host's privileges and listens to nobody, and one
    /// without any that parses requests. Prints `ready http://ADDR:PORT` on a line of its own once everything answers.
    /// SIGTERM lets running requests end; containers live on and are found again by the next start. Started by another
    /// user, it says what will not work and refuses workloads.
    Serve(ServeArgs),
    /// Run the privileged half alone, on a Unix socket
    Node(NodeArgs),
    /// Check whether this host can run sealed workloads
    ///
    /// One line for each check; what fails comes with what to do. Exit code 1 if a workload could not run.
    Doctor {
        #[command(flatten)]
        settings: Settings,
        /// Ask the running server instead whether the kernel has every VPC as its records say; exit code 1 if one differs
        #[arg(long)]
        vpcs: bool,
        /// Print a JSON array instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Print exports that point the AWS clients at the server
    ///
    /// Use it as: eval "$(isolarium env --data-dir DIR)"
    Env {
        /// Account whose root key is exported [default: the default account]
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the isolation report of a training job or endpoint
    ///
    /// Lists what its containers tried to reach while they were sealed: when, which process, where to, how often. With
    /// --flows it lists what they and the platform's transfers for them sent and received in their VPC, with the rules
    /// that decided.
    Report {
        /// Name or ARN of a training job or endpoint
        target: String,
        /// Traffic in the VPC instead of attempts to leave a sealed container
        #[arg(long)]
        flows: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show which jobs and endpoints run and which wait for room
    ///
    /// On a terminal it shows the state anew every two seconds until Ctrl-C; elsewhere, and with --once, it prints once. What
    /// waits stands in the order in which it will get room.
    Top {
        /// Print once and end
        #[arg(long)]
        once: bool,
        /// Print JSON, once
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Explain why a request was denied
    ///
    /// Prints who asked for what, the statement that denied or the policy type in which nothing allowed, the condition keys
    /// that were seen, and what would allow it. Denials of every service are found by the request id that the caller got
    /// with its error, for as long as the audit trail is kept.
    ExplainDenied {
        /// The request id of the error
        request_id: String,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Work with the audit trail
    #[command(subcommand)]
    AuditLog(AuditLogCommand),
    /// Bring container images into the registry of a running server
    #[command(subcommand)]
    Image(ImageCommand),
    /// Make and list accounts, and make root keys
    #[command(subcommand)]
    Account(AccountCommand),
    /// Make IAM users
    #[command(subcommand)]
    User(UserCommand),
    /// Bring products of the marketplace in
    #[command(subcommand)]
    Product(ProductCommand),
    /// Print exports that send the AWS clients through the server's proxy, or list what it refused
    ///
    /// For clients whose endpoints are fixed: the services' real names lead to this engine, everything else is refused. The
    /// server must have been started with --proxy-listen. Use it as: eval "$(isolarium proxy --data-dir DIR)"
    Proxy {
        /// List what the proxy refused since the server started: where clients wanted to go, why not, how often
        #[arg(long)]
        refusals: bool,
        /// Print the list as JSON
        #[arg(long, requires = "refusals")]
        json: bool,
        /// Account whose root key is exported [default: the default account]
        #[arg(long, value_name = "ID", conflicts_with = "refusals")]
        account: Option<AccountId>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Stand in a VPC
    #[command(subcommand)]
    Vpc(vpc::VpcCommand),
    /// Print the path of the engine's CA bundle, or its certificate
    Ca {
        #[command(flatten)]
        settings: Settings,
        /// Print the authority's certificate (PEM) instead of the bundle's path
        #[arg(long)]
        pem: bool,
    },
    /// End every container of a data directory and remove what they left on the host
    ///
    /// Containers outlive the server by design; this is for taking an engine off a machine. Data, images and logs stay,
    /// and the next `serve` starts what was running again. Stop the server first.
    Teardown(Settings),
    /// Print a shell completion script
    Completion {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Parent of one container; started by the node alone
    #[command(hide = true)]
    Shim,
    /// Handles one archive without any privilege; started by the node alone
    #[command(hide = true)]
    Unpack,
    /// Encrypts what one container says to its peers; started by shims alone
    #[command(hide = true)]
    Tunnel,
    /// Print a reference page
    #[command(hide = true)]
    Reference {
        #[arg(value_parser = ["configuration"])]
        page: String,
    },
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    settings: Settings,
    /// Address and port of all services [default: 127.0.0.1:4599]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Serve HTTPS here too, with certificates of the engine's own CA
    #[arg(long, value_name = "ADDR:PORT")]
    tls_listen: Option<String>,
    /// Be a proxy here for clients whose endpoints are fixed; a loopback address
    #[arg(long, value_name = "ADDR:PORT")]
    proxy_listen: Option<String>,
    /// Use the node process that listens on this socket instead of starting one
    #[arg(long, value_name = "SOCKET")]
    node: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct NodeArgs {
    #[command(flatten)]
    settings: Settings,
    /// Unix socket to listen on
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Import an OCI layout, an OCI archive or a docker archive, and print the image's URI
    Import {
        /// Folder or tar file
        path: PathBuf,
        /// Repository and tag; the repository is made where it is missing
        #[arg(long, value_name = "REPO:TAG")]
        name: String,
        /// Account of the registry [default: the default account]
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Pack a root file system into an image of one layer, and print its URI
    ///
    /// Owners, modes, times and links are kept; packing the same folder twice gives the same image. Sockets, pipes and
    /// devices are left out.
    Pack(PackArgs),
}

#[derive(Debug, Args)]
struct PackArgs {
    /// Folder with the root file system
    rootfs: PathBuf,
    /// Repository and tag; the repository is made where it is missing
    #[arg(long, value_name = "REPO:TAG")]
    name: String,
    /// One word of the entry point; give it once for each word
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// One word of the default command; give it once for each word
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Environment entry
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// User, as `name`, `uid` or `uid:gid`
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Folder for the layer while it is packed; needs as much room as the root file system
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Account of the registry [default: the default account]
    #[arg(long, value_name = "ID")]
    account: Option<AccountId>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum AuditLogCommand {
    /// Check that no event was changed, removed or reordered, and print the end of the chain
    ///
    /// Reads the files alone, also beside a running server. Exit code 1 with the place where the chain breaks. Write the
    /// printed hash down elsewhere: with --head a trail whose end was cut off is noticed too.
    Verify {
        /// Hash that an earlier check printed; it must be in the trail
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Make an account and print its root key
    ///
    /// The key is also written to DIR/credentials, as the profile named by the account's id.
    Create {
        /// Account id, twelve digits [default: a free one]
        account: Option<AccountId>,
        /// Another name of the account, unique on this engine
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Make one more root key for an account and print it; a root has at most two
    Key {
        /// Account id, twelve digits
        account: AccountId,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print every account: id, alias, when it was made, its root's keys
    List {
        /// Print a JSON array instead of lines
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Subcommand)]
enum ProductCommand {
    /// Make an algorithm or model package a product, and print its ARN
    ///
    /// Jobs and models that are made of it from then on must be isolated.
    Import {
        /// algorithm/NAME or model-package/NAME of the default account, or the ARN of either
        target: String,
        /// The product's id: letters, digits and hyphens
        #[arg(long, value_name = "ID")]
        product_id: String,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make an IAM user with an access key and print it
    Create {
        /// User name
        name: String,
        /// JSON policy document that becomes the user's inline policy
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Account of the user [default: the default account]
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
        #[command(flatten)]
        settings: Settings,
    },
}

impl Settings {
    /// The configuration with `flags` on top.
    ///
    /// # Errors
    /// What [`Config::load`] refuses.
    pub fn load(&self, flags: &[(&str, &str, Option<String>)]) -> Result<Config, ConfigError> {
        let mut overrides = config::from_environment(|name| std::env::var(name).ok());
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| ConfigError::Override {
                origin: "--set".into(),
                key: setting.clone(),
                value: String::new(),
                reason: "expected KEY=VALUE".into(),
            })?;
            overrides.push(Override {
                origin: format!("--set {key}"),
                key: key.trim().into(),
                value: value.into(),
            });
        }
        let data_dir = self.data_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
        for (flag, key, value) in [("--data-dir", "data_dir", data_dir)].iter().chain(flags) {
            if let Some(value) = value {
                overrides.push(Override {
                    origin: (*flag).into(),
                    key: (*key).into(),
                    value: value.clone(),
                });
            }
        }
        Config::load(self.config.as_deref(), &overrides)
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // Before anything that allocates or starts a thread: both stay small and single-threaded.
    match std::env::args_os().nth(1) {
        Some(word) if word == "shim" => return isolarium_runtime::shim_main(),
        Some(word) if word == "unpack" => return isolarium_runtime::unpack_main(),
        Some(word) if word == "tunnel" => return isolarium_runtime::tunnel_main(),
        _ => {}
    }
    let mut tree = command();
    let parsed = tree.try_get_matches_from_mut(std::env::args_os()).and_then(|found| {
        <Cli as clap::FromArgMatches>::from_arg_matches(&found).map_err(|error| error.format(&mut tree))
    });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nobody reads the answer when even this cannot be printed.
            let _ = error.print();
            return if usage {
                Exit::Usage.into()
            } else {
                Exit::Success.into()
            };
        }
    };
    match run::run(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let usage = error.is::<ConfigError>();
            run::complain(&format!("isolarium: {error:#}"));
            if usage {
                Exit::Usage.into()
            } else {
                Exit::Failure.into()
            }
        }
    }
}

/// The whole command tree; every command's long help ends with the exit codes.
fn command() -> clap::Command {
    fn ended(command: clap::Command) -> clap::Command {
        command.after_long_help(EXIT_CODES).mut_subcommands(ended)
    }
    ended(Cli::command())
}
