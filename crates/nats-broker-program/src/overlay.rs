//! The command line laid over the configuration file: what a flag says counts (spec 07 §23).

use std::path::Path;

use nats_config::settings::{JetStream, Listen, Port, Secret, Tls, Unsupported};
use nats_config::{Located, Position, Settings};

use crate::flags::Flags;

/// The name that stands for the command line where a file is named.
pub(crate) const COMMAND_LINE: &str = "command line";

/// A flag whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagValueError {
    /// Not a port.
    #[error("-{flag} {value}: a port is a number from 0 to 65535, or -1 for any free one")]
    Port {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: i64,
    },
    /// `--user` and `--pass` belong together.
    #[error("--user and --pass belong together: one of them is missing")]
    HalfUser,
    /// A size below zero.
    #[error("--log_size_limit {0}: the size must not be negative")]
    LogSize(i64),
}

/// A place that is no file.
pub(crate) fn command_line() -> Position {
    Position { file: Path::new(COMMAND_LINE).into(), ..Position::default() }
}

fn here<T>(value: T) -> Located<T> {
    Located::new(value, command_line())
}

fn port(flag: &'static str, value: i64) -> Result<Port, FlagValueError> {
    match value {
        -1 => Ok(Port::Free),
        0 => Ok(Port::Default),
        _ => u16::try_from(value).map(Port::Number).map_err(|_| FlagValueError::Port { flag, value }),
    }
}

fn put(place: &mut Option<Located<String>>, value: Option<&String>) {
    if let Some(value) = value {
        *place = Some(here(value.clone()));
    }
}

fn switch(place: &mut Option<bool>, value: Option<bool>) {
    *place = value.or(*place);
}

/// Puts flags in force over what a file says.
///
/// # Errors
/// See [`FlagValueError`].
pub(crate) fn lay_over(settings: &mut Settings, flags: &Flags) -> Result<(), FlagValueError> {
    put(&mut settings.host, flags.host.as_ref());
    put(&mut settings.server_name, flags.server_name.as_ref());
    put(&mut settings.client_advertise, flags.client_advertise.as_ref());
    put(&mut settings.pid_file, flags.pid_file.as_ref());
    put(&mut settings.ports_file_dir, flags.ports_file_dir.as_ref());
    put(&mut settings.log_file, flags.log_file.as_ref());
    put(&mut settings.cluster_name, flags.cluster_name.as_ref());
    switch(&mut settings.logtime, flags.logtime);
    switch(&mut settings.logtime_utc, flags.logtime_utc);
    switch(&mut settings.debug, flags.debug);
    switch(&mut settings.trace, flags.trace);
    if let Some(size) = flags.log_size_limit {
        let size = u64::try_from(size).map_err(|_| FlagValueError::LogSize(size))?;
        settings.log_size_limit = Some(here(size));
    }
    if let Some(value) = flags.port {
        settings.port = Some(here(port("p", value)?));
    }
    // Monitoring listens where clients do, unless the file says otherwise.
    if let Some(value) = flags.http_port {
        let host = settings.http.take().and_then(|listen| listen.value.host);
        settings.http = Some(here(Listen { host, port: port("m", value)? }));
    }
    if let Some(value) = flags.https_port {
        let host = settings.https.take().and_then(|listen| listen.value.host);
        settings.https = Some(here(Listen { host, port: port("ms", value)? }));
    }
    lay_over_authorization(settings, flags)?;
    lay_over_tls(settings, flags);
    if flags.jetstream || flags.store_dir.is_some() {
        let mut jetstream = settings.jetstream.take().map_or_else(JetStream::default, |jetstream| jetstream.value);
        jetstream.enabled |= flags.jetstream;
        put(&mut jetstream.store_dir, flags.store_dir.as_ref());
        settings.jetstream = Some(here(jetstream));
    }
    for name in &flags.unsupported {
        settings.unsupported.push(Unsupported { name: name.clone(), at: command_line() });
    }
    Ok(())
}

fn lay_over_authorization(settings: &mut Settings, flags: &Flags) -> Result<(), FlagValueError> {
    if flags.user.is_some() != flags.pass.is_some() {
        return Err(FlagValueError::HalfUser);
    }
    if flags.user.is_none() && flags.token.is_none() {
        return Ok(());
    }
    let given = settings.authorization.take().map(|authorization| authorization.value);
    let mut authorization = given.unwrap_or_default();
    put(&mut authorization.user, flags.user.as_ref());
    if let Some(pass) = &flags.pass {
        authorization.password = Some(here(Secret::new(pass)));
    }
    if let Some(token) = &flags.token {
        authorization.token = Some(here(Secret::new(token)));
    }
    settings.authorization = Some(here(authorization));
    Ok(())
}

fn lay_over_tls(settings: &mut Settings, flags: &Flags) {
    let names_files = flags.tls_cert.is_some() || flags.tls_key.is_some() || flags.tls_ca.is_some();
    if !flags.tls && !flags.tls_verify && !names_files {
        return;
    }
    let mut tls = settings.tls.take().map_or_else(Tls::default, |tls| tls.value);
    put(&mut tls.cert_file, flags.tls_cert.as_ref());
    put(&mut tls.key_file, flags.tls_key.as_ref());
    put(&mut tls.ca_file, flags.tls_ca.as_ref());
    if flags.tls_verify {
        tls.verify = Some(here(true));
    }
    settings.tls = Some(here(tls));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Command, parse};

    fn settings(line: &str) -> Result<Settings, FlagValueError> {
        let Ok(Command::Run(flags)) = parse(line.split_whitespace().map(str::to_owned)) else { panic!("{line}") };
        let mut settings = Settings {
            host: Some(Located::new("1.2.3.4".to_owned(), Position::default())),
            http: Some(Located::new(
                Listen { host: Some("5.6.7.8".to_owned()), port: Port::Number(1) },
                Position::default(),
            )),
            debug: Some(true),
            ..Settings::default()
        };
        lay_over(&mut settings, &flags)?;
        Ok(settings)
    }

    #[test]
    fn flags_count_more_than_the_file_and_leave_the_rest() {
        let found = settings("-p -1 -m 8222 -n me -D=false --tlsverify --tlscert c -js").unwrap();
        assert_eq!(found.host.unwrap().value, "1.2.3.4");
        assert_eq!(found.port.unwrap().value, Port::Free);
        let http = found.http.unwrap().value;
        assert_eq!((http.host.as_deref(), http.port), (Some("5.6.7.8"), Port::Number(8222)));
        assert_eq!(found.debug, Some(false));
        assert!(found.tls.as_ref().is_some_and(|tls| tls.verify.as_ref().is_some_and(|verify| verify.value)));
        assert!(found.jetstream.is_some_and(|jetstream| jetstream.enabled));
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        assert_eq!(settings("-p 70000"), Err(FlagValueError::Port { flag: "p", value: 70_000 }));
        assert_eq!(settings("-m -2"), Err(FlagValueError::Port { flag: "m", value: -2 }));
        assert_eq!(settings("--user u"), Err(FlagValueError::HalfUser));
        assert_eq!(settings("--pass u"), Err(FlagValueError::HalfUser));
    }
}
