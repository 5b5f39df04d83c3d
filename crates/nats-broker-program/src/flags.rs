//! The command line: nats-server's flags, read by the rules of Go's flag package (spec 07 §23).
//!
//! `-x v`, `--x v`, `-x=v` and `--x=v` mean the same; a switch takes a value only after `=`; the first word that is no
//! flag ends the flags. A flag that is given twice: the last one counts.

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run a broker, or with [`Flags::check`] only look whether one could run.
    Run(Box<Flags>),
    /// Send a signal to a running broker: `signal`, `signal=pid` or `signal=pidfile`.
    Signal(String),
    /// Print the usage.
    Help,
    /// Print what can be said about TLS.
    HelpTls,
    /// Print the version.
    Version,
}

/// Flags of a run; `None` and `false` where the command line says nothing, so that the configuration file decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-a`: address to bind.
    pub host: Option<String>,
    /// `-p`: port for clients; -1 takes a free one, 0 is 4222.
    pub port: Option<i64>,
    /// `-n`: name shown to clients and in monitoring.
    pub server_name: Option<String>,
    /// `-P`: file that gets the process id.
    pub pid_file: Option<String>,
    /// `-m`: port for monitoring over HTTP; -1 takes a free one.
    pub http_port: Option<i64>,
    /// `-ms`: port for monitoring over HTTPS.
    pub https_port: Option<i64>,
    /// `-c`: configuration file.
    pub config: Option<String>,
    /// `-t`: check the configuration and end.
    pub check: bool,
    /// `--client_advertise`: `host:port` that INFO names.
    pub client_advertise: Option<String>,
    /// `--ports_file_dir`: directory for the file that lists the open ports.
    pub ports_file_dir: Option<String>,
    /// `-l`: log file instead of stderr.
    pub log_file: Option<String>,
    /// `-T`: lines of the log have a time.
    pub logtime: Option<bool>,
    /// `--logtime_utc`: that time is in UTC.
    pub logtime_utc: Option<bool>,
    /// `-D`: debug lines.
    pub debug: Option<bool>,
    /// `-V`: protocol trace.
    pub trace: Option<bool>,
    /// `--log_size_limit`: bytes after which the log file is put aside.
    pub log_size_limit: Option<i64>,
    /// `--max_traced_msg_len`: read, and without effect while there is no protocol trace.
    pub max_traced_msg_len: Option<i64>,
    /// `-js`.
    pub jetstream: bool,
    /// `-sd`: directory of JetStream.
    pub store_dir: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--pass`.
    pub pass: Option<String>,
    /// `--auth`: a token.
    pub token: Option<String>,
    /// `--tls`: clients must use TLS.
    pub tls: bool,
    /// `--tlsverify`: as `--tls`, and they must show a certificate.
    pub tls_verify: bool,
    /// `--tlscert`.
    pub tls_cert: Option<String>,
    /// `--tlskey`.
    pub tls_key: Option<String>,
    /// `--tlscacert`.
    pub tls_ca: Option<String>,
    /// `--cluster_name`: shown in INFO.
    pub cluster_name: Option<String>,
    /// `--skip_unsupported`: parts that this program does not have are left out with a warning.
    pub skip_unsupported: bool,
    /// Flags of parts that this program does not have, as they were written.
    pub unsupported: Vec<String>,
}

/// A command line that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// A flag that is not even one.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The value is missing.
    #[error("flag needs an argument: -{0}")]
    MissingValue(String),
    /// Not a number.
    #[error("invalid value {value:?} for flag -{flag}: parse error")]
    Number {
        /// The flag.
        flag: String,
        /// What was given.
        value: String,
    },
    /// Not a truth value.
    #[error("invalid boolean value {value:?} for -{flag}: parse error")]
    Boolean {
        /// The flag.
        flag: String,
        /// What was given.
        value: String,
    },
}

/// A word in place of a flag that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized command: {0:?}")]
pub struct UnknownCommand(pub String);

/// Why there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// See [`UsageError`].
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// See [`UnknownCommand`].
    #[error(transparent)]
    Command(#[from] UnknownCommand),
}

/// Everything that can be set, in one place while the flags are read.
#[derive(Default)]
struct Reading {
    flags: Flags,
    signal: Option<String>,
    help: bool,
    help_tls: bool,
    version: bool,
}

type Text = fn(&mut Reading, String);
type Number = fn(&mut Reading, i64);
type Switch = fn(&mut Reading, bool);

enum Kind {
    Text(Text),
    Number(Number),
    Switch(Switch),
    /// Of a part that is not in this program. Its value is not looked at.
    Absent {
        has_value: bool,
    },
}

/// The flag behind a name.
fn kind(name: &str) -> Option<Kind> {
    use Kind::{Absent, Number, Switch, Text};
    Some(match name {
        "a" | "addr" | "net" => Text(|to, value| to.flags.host = Some(value)),
        "p" | "port" => Number(|to, value| to.flags.port = Some(value)),
        "n" | "name" | "server_name" => Text(|to, value| to.flags.server_name = Some(value)),
        "P" | "pid" => Text(|to, value| to.flags.pid_file = Some(value)),
        "m" | "http_port" => Number(|to, value| to.flags.http_port = Some(value)),
        "ms" | "https_port" => Number(|to, value| to.flags.https_port = Some(value)),
        "c" | "config" => Text(|to, value| to.flags.config = Some(value)),
        "t" => Switch(|to, value| to.flags.check = value),
        "sl" | "signal" => Text(|to, value| to.signal = Some(value)),
        "client_advertise" => Text(|to, value| to.flags.client_advertise = Some(value)),
        "ports_file_dir" => Text(|to, value| to.flags.ports_file_dir = Some(value)),
        "l" | "log" => Text(|to, value| to.flags.log_file = Some(value)),
        "T" | "logtime" => Switch(|to, value| to.flags.logtime = Some(value)),
        "logtime_utc" => Switch(|to, value| to.flags.logtime_utc = Some(value)),
        "D" | "debug" => Switch(|to, value| to.flags.debug = Some(value)),
        "V" | "trace" | "VV" => Switch(|to, value| to.flags.trace = Some(value)),
        "DV" | "DVV" => Switch(|to, value| {
            to.flags.debug = Some(value);
            to.flags.trace = Some(value);
        }),
        "log_size_limit" => Number(|to, value| to.flags.log_size_limit = Some(value)),
        "max_traced_msg_len" => Number(|to, value| to.flags.max_traced_msg_len = Some(value)),
        "js" | "jetstream" => Switch(|to, value| to.flags.jetstream = value),
        "sd" | "store_dir" => Text(|to, value| to.flags.store_dir = Some(value)),
        "user" => Text(|to, value| to.flags.user = Some(value)),
        "pass" => Text(|to, value| to.flags.pass = Some(value)),
        "auth" => Text(|to, value| to.flags.token = Some(value)),
        "tls" => Switch(|to, value| to.flags.tls = value),
        "tlsverify" => Switch(|to, value| to.flags.tls_verify = value),
        "tlscert" => Text(|to, value| to.flags.tls_cert = Some(value)),
        "tlskey" => Text(|to, value| to.flags.tls_key = Some(value)),
        "tlscacert" => Text(|to, value| to.flags.tls_ca = Some(value)),
        "cluster_name" => Text(|to, value| to.flags.cluster_name = Some(value)),
        "skip_unsupported" => Switch(|to, value| to.flags.skip_unsupported = value),
        "s" | "syslog" | "no_advertise" => Absent { has_value: false },
        "r" | "remote_syslog" | "routes" | "cluster" | "cluster_listen" | "cluster_advertise" | "connect_retries"
        | "profile" => Absent { has_value: true },
        "h" | "help" => Switch(|to, value| to.help = value),
        "help_tls" => Switch(|to, value| to.help_tls = value),
        "v" | "version" => Switch(|to, value| to.version = value),
        _ => return None,
    })
}

/// Reads a command line without the name of the program.
///
/// # Errors
/// A flag that does not exist, has no value or a value of the wrong kind, or a word that is no command.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, FlagError> {
    let mut arguments = arguments.into_iter();
    let mut reading = Reading::default();
    let mut word = None;
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            word = Some(argument);
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            word = arguments.next();
            break;
        }
        if flag.starts_with(['-', '=']) {
            return Err(UsageError::Syntax(argument).into());
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        set(&mut reading, name, value, &mut arguments)?;
    }
    command(reading, word)
}

fn set(
    reading: &mut Reading,
    name: &str,
    value: Option<String>,
    rest: &mut impl Iterator<Item = String>,
) -> Result<(), UsageError> {
    let kind = kind(name).ok_or_else(|| UsageError::Unknown(name.to_owned()))?;
    let mut wanted =
        |value: Option<String>| value.or_else(|| rest.next()).ok_or_else(|| UsageError::MissingValue(name.to_owned()));
    match kind {
        Kind::Text(set) => set(reading, wanted(value)?),
        Kind::Number(set) => {
            let value = wanted(value)?;
            let number = value.parse().map_err(|_| UsageError::Number { flag: name.to_owned(), value })?;
            set(reading, number);
        }
        Kind::Switch(set) => set(reading, truth(name, value)?),
        Kind::Absent { has_value: true } => {
            let value = wanted(value)?;
            if !value.is_empty() {
                reading.flags.unsupported.push(format!("-{name}"));
            }
        }
        Kind::Absent { has_value: false } => {
            if truth(name, value)? {
                reading.flags.unsupported.push(format!("-{name}"));
            }
        }
    }
    Ok(())
}

/// A switch without a value is on.
fn truth(flag: &str, value: Option<String>) -> Result<bool, UsageError> {
    match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(UsageError::Boolean { flag: flag.to_owned(), value: other.to_owned() }),
    }
}

fn command(reading: Reading, word: Option<String>) -> Result<Command, FlagError> {
    if reading.version {
        return Ok(Command::Version);
    }
    if reading.help {
        return Ok(Command::Help);
    }
    if reading.help_tls {
        return Ok(Command::HelpTls);
    }
    match word.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => {}
        Some("version") => return Ok(Command::Version),
        Some("help") => return Ok(Command::Help),
        Some(_) => return Err(UnknownCommand(word.unwrap_or_default()).into()),
    }
    Ok(match reading.signal {
        Some(signal) => Command::Signal(signal),
        None => Command::Run(Box::new(reading.flags)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, FlagError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn flags(line: &str) -> Flags {
        match read(line) {
            Ok(Command::Run(flags)) => *flags,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_spelling_means_the_same() {
        let wanted = Flags { port: Some(-1), host: Some("::1".to_owned()), ..Flags::default() };
        for line in
            ["-p -1 -a ::1", "--port -1 --addr ::1", "-p=-1 -net=::1", "--port=-1 --net=::1", "-a x -a ::1 -p=-1"]
        {
            assert_eq!(flags(line), wanted, "{line}");
        }
    }

    #[test]
    fn switches_take_values_only_after_an_equals_sign() {
        assert_eq!(flags("-D -V=false -T=0").debug, Some(true));
        assert_eq!(flags("-D -V=false -T=0").trace, Some(false));
        assert_eq!(flags("-DV").trace, Some(true));
        assert_eq!(read("-js false"), Err(UnknownCommand("false".to_owned()).into()));
        assert!(flags("-js -sd=/x").jetstream);
        assert_eq!(flags("-js -sd=/x").store_dir.as_deref(), Some("/x"));
    }

    #[test]
    fn words_end_the_flags() {
        assert_eq!(read("-D version"), Ok(Command::Version));
        assert_eq!(read("HELP"), Ok(Command::Help));
        assert_eq!(read("-- help -p x"), Ok(Command::Help));
        assert_eq!(read("-"), Err(UnknownCommand("-".to_owned()).into()));
        assert_eq!(read("-sl ldm=12"), Ok(Command::Signal("ldm=12".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, text) in [
            ("--zzz", "flag provided but not defined: -zzz"),
            ("-p", "flag needs an argument: -p"),
            ("-p abc", "invalid value \"abc\" for flag -p: parse error"),
            ("-D=maybe", "invalid boolean value \"maybe\" for -D: parse error"),
            ("---p 1", "bad flag syntax: ---p"),
            ("foo", "unrecognized command: \"foo\""),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), text, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_command_line_is_read_or_refused(words in proptest::collection::vec("(-{0,3}[a-zA-Z_]{0,8}(=.{0,4})?|.{0,6})", 0..6)) {
            // A run, a word or a reason; never a panic.
            let _ = parse(words);
        }
    }

    #[test]
    fn flags_of_absent_parts_are_kept_apart() {
        let flags = flags("--routes nats://x:1 --cluster_listen=nats://x:2 -s --no_advertise=false");
        assert_eq!(flags.unsupported, ["-routes", "-cluster_listen", "-s"]);
    }
}
