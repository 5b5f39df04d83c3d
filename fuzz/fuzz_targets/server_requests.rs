//! What arrives at a server that waits to be provisioned: any message, and any `configure` of whoever knows the token.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use choria_config::{Config, Environment, Mode};
use choria_protocol::v1;
use choria_server::counters::Counters;
use choria_server::files::Disk;
use choria_server::pipeline::{Pipeline, Verification};
use choria_server::provision::configure::{ConfigureRequest, Content, Context, ProviderCheck, plan};
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_795_219_200;

fuzz_target!(|bytes: &[u8]| {
    let counters = Arc::new(Counters::default());
    let mut pipeline = Pipeline::new(Verification::Provisioning, vec!["provisioning".to_owned()], counters);
    if let Ok(request) = pipeline.accept("provisioning.node.n1.example.net", bytes, NOW, |_| Ok(true)) {
        // Whatever is served can be answered, and belongs to the collective.
        assert!(request.transport.headers.reply_subject().is_ok());
        assert_eq!(request.request.envelope.collective, "provisioning");
        let _ = v1::encode_request(&request.secure, &request.transport.headers);
    }

    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split('\u{1}').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let request = ConfigureRequest {
        config: next(),
        certificate: next(),
        ca: next(),
        ssldir: next(),
        key: next(),
        ecdh_public: next(),
        server_jwt: next(),
        action_policies: vec![(next(), next())],
        opa_policies: vec![(next(), next())],
    };
    let environment = Environment::fixed("n1.example.net");
    // Nothing there exists, and planning writes nothing.
    let directory = Path::new("/nonexistent/choria");
    let context = Context {
        config_file: &directory.join("server.conf"),
        environment: &environment,
        by_default: true,
        provider: ProviderCheck::Embedded,
        transfer: None,
        request_id: &request.ssldir,
        caller: &request.certificate,
        sender: &request.ca,
        now: NOW,
    };
    let Ok(plan) = plan(&Disk, &request, &context) else { return };
    for replacement in &plan.replacements {
        if replacement.target == context.config_file {
            let Content::File { bytes, .. } = &replacement.content else { unreachable!("a file is written") };
            let text = std::str::from_utf8(bytes).expect("it came from text");
            let config = Config::from_text(text, Mode::Server, &environment).expect("it was loaded before");
            assert_eq!(text.lines().count(), plan.lines);
            assert!(config.raw_options().len() < plan.lines);
        }
    }
});
