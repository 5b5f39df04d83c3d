//! A rules file of the built-in helper, and the facts of a node that it judges.
#![no_main]

use std::path::Path;

use choria_provisioner::config::Features;
use choria_provisioner::helper::builtin::RuleSet;
use choria_provisioner::helper::builtin::simulate::{Imagined, simulate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (rules, facts) = text.split_once('\0').unwrap_or((&text, "{}"));
    for features in [Features { pki: true, jwt: true }, Features::default()] {
        let Ok(rules) = RuleSet::from_text(Path::new("r.yaml"), rules, features) else { continue };
        assert!(!rules.is_empty(), "a file without rules is an error");
        let node = Imagined {
            identity: "n1.example.net".to_owned(),
            facts: serde_json::from_str(facts).unwrap_or_default(),
            claims: None,
            ssldir: features.pki.then(|| "/etc/choria/ssl".to_owned()),
        };
        let simulation = simulate(&rules, &node);
        match simulation.gets {
            Some(gets) => {
                assert_eq!(simulation.decision, "provision");
                let names = ["identity", "plugin.choria.server.provision"];
                assert!(names.iter().all(|name| gets.configuration.keys().any(|key| key.eq_ignore_ascii_case(name))));
            }
            None => assert!(!simulation.reason.is_empty() && simulation.decision != "provision"),
        }
    }
});
