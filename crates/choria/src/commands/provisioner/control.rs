//! `choria provisioner status`, `explain`, `pause` and `resume`: asking a running provisioner over its control socket.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use choria_provisioner::config::{ControlSocket, ProvisionerConfig};
use choria_provisioner::control::place::Surroundings;
use choria_provisioner::control::types::Status;
use choria_provisioner::control::{Answer, AskError, Request, ask};
use jiff::tz::TimeZone;

use crate::cli::{ControlArgs, ExplainArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::print::provisioner as print;

/// How the provisioner is doing.
pub(crate) fn status(args: &ControlArgs, config: Option<&Path>) -> Outcome {
    let (_, status) = find(args, config)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&status)?)?;
    } else {
        print::status(&mut out, &status, &TimeZone::system())?;
    }
    Ok(Exit::Ok)
}

/// What is known about a node.
pub(crate) fn explain(args: &ExplainArgs, config: Option<&Path>) -> Outcome {
    let (socket, _) = find(&args.control, config)?;
    let answer =
        ask(&socket, Request::Explain { node: args.node.clone() }).map_err(|error| failure(&error, &socket))?;
    let Answer::Explanation(explanation) = answer else { return Err(unexpected(&socket)) };
    let mut out = io::stdout().lock();
    if args.control.json {
        writeln!(out, "{}", serde_json::to_string(&explanation)?)?;
    } else {
        print::explanation(&mut out, &explanation, &TimeZone::system())?;
    }
    Ok(if explanation.state == "unknown" { Exit::Failed } else { Exit::Ok })
}

/// Makes it start no more nodes.
pub(crate) fn pause(args: &ControlArgs, config: Option<&Path>) -> Outcome {
    steer(args, config, Request::Pause, "paused: nodes that have not been sent their configuration wait")
}

/// Lets it go on.
pub(crate) fn resume(args: &ControlArgs, config: Option<&Path>) -> Outcome {
    steer(args, config, Request::Resume, "provisioning goes on")
}

fn steer(args: &ControlArgs, config: Option<&Path>, request: Request, done: &str) -> Outcome {
    let (socket, _) = find(args, config)?;
    let Answer::Status(status) = ask(&socket, request).map_err(|error| failure(&error, &socket))? else {
        return Err(unexpected(&socket));
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&status)?)?;
    } else {
        writeln!(out, "{}: {done}", status.process.identity)?;
    }
    Ok(Exit::Ok)
}

/// Finds the provisioner that is meant, and how it is doing.
fn find(args: &ControlArgs, config: Option<&Path>) -> Result<(PathBuf, Status), Failure> {
    let around = Surroundings::of_process();
    let (places, meant) = match (&args.socket, config) {
        (Some(socket), _) => (vec![socket.clone()], None),
        (None, None) => (around.candidates(None), None),
        (None, Some(file)) => match ProvisionerConfig::load(file)?.control_socket {
            ControlSocket::At(path) => (vec![path], None),
            ControlSocket::Default => (around.candidates(Some(file)), Some(std::fs::canonicalize(file)?)),
            ControlSocket::Off => {
                let message =
                    format!("{}: control_socket is empty, so this provisioner cannot be asked", file.display());
                return Err(Failure::new(message)
                    .hint("set control_socket to a path, or remove it, and restart the provisioner"));
            }
        },
    };
    let mut denied = None;
    for place in &places {
        match ask(place, Request::Status) {
            // Another provisioner of this host may hold the plain name.
            Ok(Answer::Status(status))
                if meant.as_ref().is_none_or(|file| Path::new(&status.process.config) == file) =>
            {
                return Ok((place.clone(), *status));
            }
            Ok(Answer::Status(_)) | Err(AskError::NotRunning { .. }) => {}
            Ok(_) => return Err(unexpected(place)),
            Err(error @ AskError::Denied { .. }) => denied = Some(failure(&error, place)),
            Err(error) => return Err(failure(&error, place)),
        }
    }
    Err(denied.unwrap_or_else(|| nobody(&places, &around)))
}

fn nobody(places: &[PathBuf], around: &Surroundings) -> Failure {
    let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let others: Vec<String> = around
        .sockets()
        .into_iter()
        .filter(|socket| !places.contains(socket) && ask(socket, Request::Status).is_ok())
        .map(|socket| socket.display().to_string())
        .collect();
    let hint = if others.is_empty() {
        "is it running, as this user? Name its control socket with --socket PATH or its configuration with --config FILE".to_owned()
    } else {
        format!("provisioners answer on {}; choose one with --socket", others.join(", "))
    };
    Failure::new(format!("no provisioner answers on {}", tried.join(" or "))).hint(hint)
}

fn failure(error: &AskError, socket: &Path) -> Failure {
    let failure = Failure::new(error);
    match error {
        AskError::Denied { .. } => {
            failure.hint(format!("sudo -u USER choria provisioner status --socket {}", socket.display()))
        }
        AskError::Version { .. } => failure.hint("use the program that the provisioner was started with"),
        _ => failure,
    }
}

fn unexpected(socket: &Path) -> Failure {
    Failure::new(format!("the provisioner on {} answered something else than it was asked", socket.display()))
}
