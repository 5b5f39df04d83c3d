//! Any text as nats-server's configuration: it is read, or it is refused with places that can be shown, and both alike
//! each time. After a zero byte comes a file that it may include, after another one a variable of the environment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nats_config::{ConfigError, Files, load};
use std::path::Path;

struct Stage<'a> {
    main: &'a str,
    included: &'a str,
    variable: Option<&'a str>,
}

impl Files for Stage<'_> {
    fn read(&self, path: &Path) -> Result<String, String> {
        match path.to_str() {
            Some("/etc/main.conf") => Ok(self.main.to_owned()),
            Some("/etc/a.inc") => Ok(self.included.to_owned()),
            _ => Err(format!("{} is not there", path.display())),
        }
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.variable.filter(|_| name == "E").map(str::to_owned)
    }
}

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\0');
    let main = parts.next().unwrap_or_default();
    let stage = Stage { main, included: parts.next().unwrap_or_default(), variable: parts.next() };
    let path = Path::new("/etc/main.conf");
    match (load(path, &stage), load(path, &stage)) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first.settings, second.settings);
            assert_eq!(first.warnings, second.warnings);
            let _ = first.start_problems();
            let _ = format!("{first:?}");
            for unsupported in &first.settings.unsupported {
                let shown = first.problem(&unsupported.at, "not in this broker", None).to_string();
                assert!(shown.starts_with("/etc/"));
            }
        }
        (Err(first), Err(second)) => {
            assert_eq!(first.to_string(), second.to_string());
            assert!(matches!(first, ConfigError::Invalid(_)));
            assert!(!first.problems().is_empty() && first.problems().len() <= 50);
            for problem in first.problems() {
                // A place, a line and a hint, each on one line of bounded length.
                let shown = problem.to_string();
                assert!(shown.lines().count() <= 4 && shown.len() < 4096, "{shown}");
            }
        }
        (first, second) => panic!("{first:?} and {second:?}"),
    }
});
