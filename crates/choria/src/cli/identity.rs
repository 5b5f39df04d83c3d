//! Flags of the commands that make tokens, keys and certificates.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// `choria jwt ...`; without a sub-command it views a token.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct JwtArgs {
    #[command(flatten)]
    pub view: Option<JwtView>,
    #[command(subcommand)]
    pub command: Option<JwtCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JwtCommand {
    /// Make a token that lets nodes find and prove themselves to the provisioner.
    #[command(visible_aliases = ["prov", "provision", "p"])]
    Provisioning(Box<JwtProvisioning>),
    /// Show a token, and check it when its signer's key is given.
    #[command(visible_aliases = ["show", "v"])]
    View(JwtView),
    /// Make an Ed25519 key pair.
    #[command(visible_alias = "k")]
    Keys(JwtKeys),
}

#[derive(Debug, Args)]
pub(crate) struct JwtProvisioning {
    /// File to write the token to.
    pub file: PathBuf,
    /// Private key that signs it: RSA (PEM) or Ed25519 (hex seed).
    pub signing_key: PathBuf,
    #[command(flatten)]
    pub claims: TokenClaims,
    /// Let the node send unsigned messages until it is provisioned.
    #[arg(long, overrides_with = "no_insecure")]
    pub insecure: bool,
    #[arg(long, hide = true, overrides_with = "insecure")]
    pub no_insecure: bool,
    /// User that the node names to the broker.
    #[arg(long, value_name = "USER")]
    pub username: Option<String>,
    /// Password for that user.
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// More data for the helper, a JSON object.
    #[arg(long, value_name = "JSON")]
    pub extensions: Option<String>,
    /// Organisation.
    #[arg(long, value_name = "ORG", default_value = "choria")]
    pub org: String,
    /// Have the node speak protocol version 2.
    #[arg(long)]
    pub protocol_v2: bool,
    /// Allow the provisioner to upgrade the node's program.
    #[arg(long, alias = "update")]
    pub upgrade: bool,
    /// How long the token may be used.
    #[arg(long, value_name = "DURATION", default_value = "1y", value_parser = crate::values::duration)]
    pub validity: Duration,
    /// Overwrite the file.
    #[arg(short = 'f', long)]
    pub force: bool,
}

/// Claims that both spellings know.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TokenClaims {
    /// The secret that the provisioner must show to the node; asked for when not given.
    #[arg(long, value_name = "TEXT")]
    pub token: Option<String>,
    /// Brokers to connect to: host:port, repeated or separated by commas.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub urls: Vec<String>,
    /// Domain whose SRV records name the brokers.
    #[arg(long, value_name = "DOMAIN")]
    pub srv: Option<String>,
    /// Provision nodes whose configuration does not say otherwise.
    #[arg(long)]
    pub default: bool,
    /// File that the node publishes as registration data.
    #[arg(long, value_name = "FILE")]
    pub registration: Option<String>,
    /// File with the node's facts.
    #[arg(long, value_name = "FILE")]
    pub facts: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JwtView {
    /// The token.
    pub file: PathBuf,
    /// Public key or certificate of its signer.
    pub public: Option<PathBuf>,
    /// Show the claims as JSON.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JwtKeys {
    /// File for the private seed.
    pub seed_file: PathBuf,
    /// File for the public key.
    pub public: Option<PathBuf>,
    /// Overwrite files.
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Show the public key of an existing seed.
    #[arg(long)]
    pub show_public: bool,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    pub command: CaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make a certificate authority.
    Init(CaInit),
    /// Make a key and a certificate for a broker, a client or a provisioner.
    Issue(CaIssue),
    /// Sign a certificate request after checking it.
    Sign(CaSign),
    /// Show the authority, a certificate or a certificate request.
    Show(CaShow),
}

/// Key types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyType {
    // Elliptic curve P-256: nodes and brokers.
    P256,
    // Ed25519: nodes and brokers.
    Ed25519,
    // RSA 2048: whoever signs requests, clients and provisioners.
    Rsa,
}

#[derive(Debug, Args)]
pub(crate) struct CaInit {
    /// Directory of the authority.
    pub dir: PathBuf,
    /// Its name.
    #[arg(long, default_value = "Choria CA")]
    pub name: String,
    /// Its key.
    #[arg(long, value_enum, default_value_t = KeyType::P256)]
    pub key_type: KeyType,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CaIssue {
    /// Directory of the authority.
    pub dir: PathBuf,
    /// Name in the certificate: broker.example.net, ops.mcollective.
    pub name: String,
    /// Directory for NAME.pem, NAME-key.pem and ca.pem.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Its key: rsa for whoever signs requests (the default for NAME.mcollective), p256 for all others.
    #[arg(long, value_enum)]
    pub key_type: Option<KeyType>,
    /// More DNS names.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub dns: Vec<String>,
    /// IP addresses.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub ip: Vec<std::net::IpAddr>,
    /// How long it may be used.
    #[arg(long, value_name = "DURATION", default_value = "1y", value_parser = crate::values::duration)]
    pub validity: Duration,
    /// Overwrite files.
    #[arg(short = 'f', long)]
    pub force: bool,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CaSign {
    /// Directory of the authority.
    pub dir: PathBuf,
    /// Certificate request; - reads stdin.
    pub csr: PathBuf,
    /// The only name that the request may be for; the name in the request otherwise.
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Sign also names that nodes may not have, such as those of people: NAME.mcollective.
    #[arg(long)]
    pub allow_any_name: bool,
    /// File for the certificate; stdout otherwise.
    #[arg(short = 'o', long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How long it may be used.
    #[arg(long, value_name = "DURATION", default_value = "1y", value_parser = crate::values::duration)]
    pub validity: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct CaShow {
    /// Directory of an authority, a certificate or a certificate request.
    pub path: PathBuf,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}
