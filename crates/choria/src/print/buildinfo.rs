//! What `choria buildinfo` shows (spec 03 §13).

use std::path::Path;

use choria_config::BuildSettings;
use choria_tokens::ProvisioningClaims;
use serde_json::{Map, Value};

/// What there is to show.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// Settings of this build.
    pub build: &'a BuildSettings,
    /// Where the provisioning token is looked for.
    pub token_file: Option<&'a Path>,
    /// Its claims, when it is there and can be used.
    pub claims: Option<&'a ProvisioningClaims>,
    /// Version of the compiler.
    pub rust_version: &'a str,
    /// Libraries, one `name version` per line.
    pub dependencies: Option<&'a str>,
}

/// A heading and its lines.
#[derive(Debug, Default)]
pub(crate) struct Section {
    title: &'static str,
    /// Labels end in this column.
    edge: usize,
    rows: Vec<(&'static str, String)>,
    lines: Vec<String>,
}

impl Section {
    fn new(title: &'static str, longest_label: &str) -> Self {
        Self { title, edge: longest_label.len() + 2, ..Self::default() }
    }

    fn row(mut self, label: &'static str, value: impl ToString) -> Self {
        self.rows.push((label, value.to_string()));
        self
    }

    fn row_if(self, label: &'static str, value: &str) -> Self {
        if value.is_empty() { self } else { self.row(label, value) }
    }
}

/// Everything in its documented order.
pub(crate) fn sections(facts: &Facts<'_>) -> Vec<Section> {
    let build = facts.build;
    let mut all = vec![
        Section::new("Build Data", "Rust Version")
            .row("Version", &build.version)
            .row("Git SHA", &build.sha)
            .row("Build Date", &build.build_date)
            .row("License", env!("CARGO_PKG_LICENSE"))
            .row("Rust Version", facts.rust_version),
        Section::new("Protocol Defaults and Settings", "Client Identity Suffix")
            .row("Default Collectives", build.default_collectives.join(", "))
            .row("Client Identity Suffix", &build.client_identity_suffix),
        Section::new("Network Broker Settings", "Embedded NATS Server Version")
            .row("Maximum Network Clients", build.max_broker_clients)
            .row("Embedded NATS Server Version", format!("nats-broker {}", env!("CARGO_PKG_VERSION"))),
        server(facts),
        Section::new("Security Defaults", "x509 Security").row("TLS", build.tls).row("x509 Security", build.secure),
    ];
    if (!build.tls || !build.secure)
        && let Some(section) = all.last_mut()
    {
        section.lines.push(
            "NOTE: This build does not protect its connections or messages in the usual way and is meant for laboratories."
                .to_owned(),
        );
    }
    let mut agents = Section::new("Agent Providers", "");
    agents.lines.push(format!("Built-in Agents version {}", build.version));
    all.push(agents);
    if let Some(dependencies) = facts.dependencies {
        let mut section = Section::new("Dependencies", "");
        section.lines = dependencies.lines().map(str::to_owned).collect();
        all.push(section);
    }
    all
}

fn server(facts: &Facts<'_>) -> Section {
    let build = facts.build;
    let supported = facts.claims.is_some()
        || !build.provision_broker_urls.is_empty()
        || build.provision_broker_srv_domain.is_some();
    let mut section = Section::new("Server Settings", "Provisioning Registration Data")
        .row("Provisioning Target Resolver", crate::commands::provision::RESOLVER)
        .row("Supports Provisioning", supported);
    if let Some(file) = facts.token_file {
        section = section.row("Provisioning JWT file", file.display());
    }
    if !supported {
        return section;
    }
    let claims = facts.claims;
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let token_known = claims.is_some() || build.provision_token.is_some();
    let urls = claims.map_or_else(|| build.provision_broker_urls.join(", "), |claims| claims.broker_urls().join(", "));
    let masked = |set: bool| if set { "******" } else { "" };
    let text = |from_token: fn(&ProvisioningClaims) -> &str, built: String| {
        claims.map(from_token).filter(|text| !text.is_empty()).map_or(built, str::to_owned)
    };
    section = section
        .row("Provisioning Token", if token_known { "*****" } else { "not set" })
        .row("Provisioning Default", claims.map_or(build.provision_mode_default, |claims| claims.chpd))
        .row("Provisioning TLS", claims.map_or(build.provision_secure, |claims| claims.chs))
        .row("Default Provisioning Agent", build.provision_agent)
        .row_if("Provisioning Brokers", &urls)
        .row_if(
            "Provisioning SRV Domain",
            &text(|claims| &claims.chsrv, build.provision_broker_srv_domain.clone().unwrap_or_default()),
        )
        .row_if(
            "Provisioning Registration Data",
            &text(|claims| &claims.chrd, path(&build.provision_registration_data)),
        )
        .row_if("Provisioning Facts", &text(|claims| &claims.chf, path(&build.provision_facts)))
        .row_if(
            "Provisioning Broker Username",
            &text(|claims| &claims.chusr, build.provisioning_broker_username.clone().unwrap_or_default()),
        );
    let password =
        claims.is_some_and(|claims| !claims.chpwd.is_empty()) || build.provisioning_broker_password.is_some();
    section = section.row_if("Provisioning Broker Password", masked(password));
    if claims.is_some_and(|claims| claims.v2) {
        section = section.row("Provisioning Using Protocol v2", true);
    }
    if claims.is_some_and(|claims| claims.update) || build.provision_allow_server_update {
        section = section.row("Provisioning Version Upgrades", true);
    }
    section
}

/// For people.
pub(crate) fn text(sections: &[Section]) -> String {
    let mut out = String::from("Choria build settings:\n");
    for section in sections {
        out.push_str(&format!("\n{}:\n\n", section.title));
        let edge = section.edge;
        for (label, value) in &section.rows {
            out.push_str(&format!("{label:>edge$}: {value}\n"));
        }
        for line in &section.lines {
            out.push_str(&format!("  {line}\n"));
        }
    }
    out
}

/// For scripts: one object per section, or a list where the section is one.
pub(crate) fn json(sections: &[Section]) -> String {
    let document: Map<String, Value> = sections
        .iter()
        .map(|section| {
            let value = if section.rows.is_empty() {
                Value::from(section.lines.clone())
            } else {
                section.rows.iter().map(|(label, value)| ((*label).to_owned(), Value::from(value.clone()))).collect()
            };
            (section.title.to_owned(), value)
        })
        .collect();
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(claims: Option<&ProvisioningClaims>) -> String {
        let build = BuildSettings { version: "0.30.2".to_owned(), ..BuildSettings::default() };
        let facts = Facts {
            build: &build,
            token_file: Some(Path::new("provisioning.jwt")),
            claims,
            rust_version: "go1.26.8",
            dependencies: None,
        };
        text(&sections(&facts))
    }

    /// The lines of one section of a golden file.
    fn golden_section(file: &str, title: &str) -> String {
        let path = format!("{}/../../testdata/server/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        section(&text, title)
    }

    fn section(text: &str, title: &str) -> String {
        let start = text.find(&format!("\n{title}:\n\n")).unwrap_or_else(|| panic!("no {title} in {text}"));
        let body = &text[start + title.len() + 4..];
        body.split("\n\n").next().unwrap_or_default().trim_end().to_owned()
    }

    fn claims(secure: bool) -> ProvisioningClaims {
        ProvisioningClaims {
            cht: "secret".into(),
            chs: secure,
            chu: "nats://localhost:25200".into(),
            chpd: true,
            purpose: choria_tokens::PURPOSE_PROVISIONING.into(),
            ..ProvisioningClaims::default()
        }
    }

    #[test]
    fn golden_server_settings() {
        const TITLE: &str = "Server Settings";
        assert_eq!(section(&shown(None), TITLE), golden_section("buildinfo-no-token.txt", TITLE));
        assert_eq!(section(&shown(Some(&claims(false))), TITLE), golden_section("buildinfo-token.txt", TITLE));
        let all = ProvisioningClaims {
            chu: String::new(),
            chsrv: "example.net".into(),
            chrd: "/etc/r.json".into(),
            chf: "/etc/f.json".into(),
            chusr: "u".into(),
            chpwd: "p".into(),
            v2: true,
            update: true,
            ..claims(true)
        };
        assert_eq!(section(&shown(Some(&all)), TITLE), golden_section("buildinfo-token-all-claims.txt", TITLE));
    }

    #[test]
    fn golden_protocol_and_security_sections() {
        for title in ["Protocol Defaults and Settings", "Security Defaults"] {
            assert_eq!(section(&shown(None), title), golden_section("buildinfo-no-token.txt", title));
        }
    }

    #[test]
    fn secrets_are_masked() {
        let text = shown(Some(&ProvisioningClaims { chpwd: "hunter2".into(), ..claims(true) }));
        assert!(!text.contains("hunter2") && !text.contains("secret"), "{text}");
    }
}
