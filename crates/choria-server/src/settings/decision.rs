//! Whether a server is a fleet member or waits to be provisioned (spec 03 §1.2, §6.2, §6.3; DESIGN §6).
//!
//! One pure function over what was found on disk. It never answers "run on defaults": a server without a
//! configuration either waits to be provisioned or does not start, and says which setting decides.

use std::path::PathBuf;

/// What lies at the path of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// Nothing, or a dangling link.
    Missing,
    /// Something that this process may not read.
    Unreadable(String),
    /// A file that the strict loader refuses.
    Broken {
        /// The loader's error, with file and line.
        error: String,
        /// What can still be told about `plugin.choria.server.provision`.
        provision: Salvaged,
    },
    /// A good configuration.
    Loaded {
        /// `plugin.choria.server.provision`, if set.
        provision: Option<bool>,
        /// State of the token and seed that the configuration relies on.
        credentials: Credentials,
    },
}

/// A setting of a broken configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Salvaged {
    /// Not in the file.
    Absent,
    /// In the file and readable.
    Value(bool),
    /// In the file, but nobody can tell what it means.
    Unclear,
}

/// Token and seed files of a server that authenticates with a JWT (spec 03 §6.2 steps 2 and 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The configuration uses certificates.
    NotUsed,
    /// They fit.
    Good,
    /// They do not, and why.
    Bad(String),
    /// They belong to another identity.
    OtherIdentity(String),
}

/// The provisioning token on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Neither build, command line nor environment name a token file.
    NotConfigured,
    /// The named file does not exist.
    Missing(PathBuf),
    /// There is something, but a node cannot use it.
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A usable token.
    Usable {
        /// `chpd`: provision unless the configuration says no.
        by_default: bool,
    },
}

/// What the build says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Build {
    /// Broker URLs or an SRV domain are compiled in.
    pub has_targets: bool,
    /// Provision unless the configuration says no.
    pub by_default: bool,
    /// A token for the actions is compiled in.
    pub has_token: bool,
}

/// Everything the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// Path of the configuration, for texts.
    pub path: PathBuf,
    /// What is there.
    pub file: ConfigFile,
    /// The provisioning token.
    pub token: Token,
    /// The build.
    pub build: Build,
}

/// What the process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Runs as member of the fleet.
    Member {
        /// Things that deserve a warning.
        notes: Vec<String>,
    },
    /// Waits to be provisioned.
    Provision {
        /// Why it is in this mode.
        because: String,
        /// What is missing before it can connect. It waits for it and never looks for brokers elsewhere.
        waiting: Option<String>,
    },
    /// Does not start.
    Refuse(Refusal),
}

/// Why a server does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No configuration and nothing that could provision.
    #[error("configuration file {} was not found and provisioning is disabled: {hint}", path.display())]
    NotFound {
        /// The configuration.
        path: PathBuf,
        /// What would enable it.
        hint: String,
    },
    /// It exists and cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It is wrong, and nothing says that this node should be provisioned anew.
    #[error("{error}{hint}")]
    Broken {
        /// The loader's error.
        error: String,
        /// Why it does not lead back to provisioning.
        hint: &'static str,
    },
    /// The server's own token names somebody else.
    #[error("identity {identity} of the server token is not the identity of the configuration")]
    OtherIdentity {
        /// Identity in the token.
        identity: String,
    },
}

/// Decides.
pub fn decide(inputs: &Inputs) -> Decision {
    let capable = inputs.build.has_targets || inputs.token != Token::NotConfigured;
    let by_default = match inputs.token {
        Token::Usable { by_default } => by_default,
        _ => inputs.build.by_default,
    };
    match &inputs.file {
        ConfigFile::Missing => without_file(inputs, by_default),
        ConfigFile::Unreadable(error) => Decision::Refuse(Refusal::Unreadable(error.clone())),
        ConfigFile::Broken { error, provision } => {
            let refuse = |hint| Decision::Refuse(Refusal::Broken { error: error.clone(), hint });
            match provision {
                Salvaged::Unclear => refuse(" (whether this node should be provisioned cannot be told)"),
                Salvaged::Value(false) => {
                    refuse(" (plugin.choria.server.provision is false, so the node is not provisioned anew)")
                }
                Salvaged::Value(true) if capable => provisioning(
                    inputs,
                    format!("plugin.choria.server.provision is true and the configuration is broken: {error}"),
                ),
                Salvaged::Absent if capable && by_default => provisioning(
                    inputs,
                    format!("the configuration is broken and nodes are provisioned by default: {error}"),
                ),
                Salvaged::Value(true) | Salvaged::Absent => refuse(""),
            }
        }
        ConfigFile::Loaded { provision, credentials } => {
            with_file(inputs, capable, by_default, *provision, credentials)
        }
    }
}

fn without_file(inputs: &Inputs, by_default: bool) -> Decision {
    let not_found = |hint: String| Decision::Refuse(Refusal::NotFound { path: inputs.path.clone(), hint });
    let because = || "there is no configuration file".to_owned();
    match &inputs.token {
        Token::Usable { by_default: true } => provisioning(inputs, because()),
        Token::Usable { by_default: false } => {
            not_found("the provisioning token does not provision by default (chpd is false)".to_owned())
        }
        // Whoever put a token there means this node to be provisioned. It waits for a better one.
        Token::Unusable { .. } => provisioning(inputs, because()),
        Token::NotConfigured | Token::Missing(_) if inputs.build.has_targets && by_default => {
            provisioning(inputs, because())
        }
        Token::Missing(path) => not_found(format!("there is no provisioning token {}", path.display())),
        Token::NotConfigured => not_found("this build has no provisioning token".to_owned()),
    }
}

fn with_file(
    inputs: &Inputs,
    capable: bool,
    by_default: bool,
    provision: Option<bool>,
    credentials: &Credentials,
) -> Decision {
    let mut notes = Vec::new();
    if !capable {
        if provision == Some(true) {
            notes.push("plugin.choria.server.provision is true but this build cannot be provisioned".to_owned());
        }
        return Decision::Member { notes };
    }
    if let Credentials::Bad(reason) = credentials {
        if by_default || provision == Some(true) {
            return provisioning(inputs, format!("the server's token and seed cannot be used: {reason}"));
        }
        notes.push(format!("the server's token and seed cannot be used, and nothing enables provisioning: {reason}"));
    }
    match provision {
        Some(true) => provisioning(inputs, "plugin.choria.server.provision is true".to_owned()),
        Some(false) => match credentials {
            Credentials::OtherIdentity(identity) => {
                Decision::Refuse(Refusal::OtherIdentity { identity: identity.clone() })
            }
            _ => Decision::Member { notes },
        },
        None if by_default => provisioning(
            inputs,
            "plugin.choria.server.provision is not set and nodes are provisioned by default".to_owned(),
        ),
        None => match credentials {
            Credentials::OtherIdentity(identity) => {
                provisioning(inputs, format!("the server token is for {identity}, not for the configured identity"))
            }
            _ => {
                if let Token::Unusable { path, reason } = &inputs.token {
                    notes.push(format!("the provisioning token {} cannot be used: {reason}", path.display()));
                }
                Decision::Member { notes }
            }
        },
    }
}

fn provisioning(inputs: &Inputs, because: String) -> Decision {
    let waiting = match &inputs.token {
        Token::Usable { .. } => None,
        Token::Unusable { path, reason } => {
            Some(format!("the provisioning token {} cannot be used: {reason}", path.display()))
        }
        Token::Missing(_) | Token::NotConfigured if inputs.build.has_targets && inputs.build.has_token => None,
        Token::Missing(path) => Some(format!("there is no provisioning token {}", path.display())),
        // Without a token every action would obey anyone on the provisioning network (spec 03 §17 row 8).
        Token::NotConfigured => Some("no provisioning token is configured, and the build has none".to_owned()),
    };
    Decision::Provision { because, waiting }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(provision: Option<bool>) -> ConfigFile {
        ConfigFile::Loaded { provision, credentials: Credentials::NotUsed }
    }

    fn inputs(file: ConfigFile, token: Token) -> Inputs {
        Inputs { path: "/etc/choria/server.conf".into(), file, token, build: Build::default() }
    }

    fn broken(provision: Salvaged) -> ConfigFile {
        ConfigFile::Broken { error: "server.conf:3: bad".into(), provision }
    }

    const ON: Token = Token::Usable { by_default: true };
    const OFF: Token = Token::Usable { by_default: false };

    fn short(decision: &Decision) -> &'static str {
        match decision {
            Decision::Member { .. } => "member",
            Decision::Provision { waiting: None, .. } => "provision",
            Decision::Provision { waiting: Some(_), .. } => "wait",
            Decision::Refuse(_) => "refuse",
        }
    }

    #[test]
    fn table() {
        let unusable = || Token::Unusable { path: "/t".into(), reason: "r".into() };
        let missing = || Token::Missing("/t".into());
        let cases = [
            (ConfigFile::Missing, ON, "provision"),
            (ConfigFile::Missing, OFF, "refuse"),
            (ConfigFile::Missing, unusable(), "wait"),
            (ConfigFile::Missing, missing(), "refuse"),
            (ConfigFile::Missing, Token::NotConfigured, "refuse"),
            (loaded(None), ON, "provision"),
            (loaded(None), OFF, "member"),
            (loaded(None), unusable(), "member"),
            (loaded(None), missing(), "member"),
            (loaded(Some(false)), ON, "member"),
            (loaded(Some(true)), OFF, "provision"),
            (loaded(Some(true)), unusable(), "wait"),
            (loaded(Some(true)), missing(), "wait"),
            (loaded(Some(true)), Token::NotConfigured, "member"),
            (broken(Salvaged::Absent), ON, "provision"),
            (broken(Salvaged::Absent), OFF, "refuse"),
            (broken(Salvaged::Absent), unusable(), "refuse"),
            (broken(Salvaged::Value(true)), OFF, "provision"),
            (broken(Salvaged::Value(true)), unusable(), "wait"),
            (broken(Salvaged::Value(true)), Token::NotConfigured, "refuse"),
            (broken(Salvaged::Value(false)), ON, "refuse"),
            (broken(Salvaged::Unclear), ON, "refuse"),
            (ConfigFile::Unreadable("no".into()), ON, "refuse"),
        ];
        for (file, token, expected) in cases {
            let inputs = inputs(file, token);
            assert_eq!(short(&decide(&inputs)), expected, "{inputs:?}");
        }
    }

    #[test]
    fn bad_credentials_need_a_reason_to_provision() {
        let file = |provision| ConfigFile::Loaded { provision, credentials: Credentials::Bad("expired".into()) };
        assert_eq!(short(&decide(&inputs(file(Some(false)), ON))), "provision");
        let Decision::Member { notes } = decide(&inputs(file(Some(false)), OFF)) else { panic!("not a member") };
        assert!(notes[0].contains("expired"), "{notes:?}");
        assert_eq!(short(&decide(&inputs(file(None), Token::Missing("/t".into())))), "member");
    }

    #[test]
    fn refusals_say_what_is_missing() {
        let Decision::Refuse(refusal) = decide(&inputs(ConfigFile::Missing, Token::Missing("/t.jwt".into()))) else {
            panic!("not refused")
        };
        let text = refusal.to_string();
        assert!(
            text.starts_with("configuration file /etc/choria/server.conf was not found and provisioning is disabled")
        );
        assert!(text.contains("/t.jwt"), "{text}");
    }
}
