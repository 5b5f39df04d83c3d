//! RPC bodies from the network and inputs from command lines: judged by the DDLs or refused, and what a command line made
//! passes the check of the server.
#![no_main]

use std::sync::LazyLock;

use choria_protocol::rpc::RequestBody;
use choria_rpc::authz::{GroupsFile, PolicyFile};
use choria_rpc::ddl::{Ddl, InputRules, embedded, embedded_names, parse_pair};
use libfuzzer_sys::fuzz_target;

static DDLS: LazyLock<Vec<Ddl>> = LazyLock::new(|| embedded_names().filter_map(embedded).collect());

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = (Ddl::parse(bytes), PolicyFile::parse(&text, false), GroupsFile::parse(&text));
    let body = RequestBody::parse(bytes);
    let pair = parse_pair(&text);
    for ddl in DDLS.iter() {
        for action in &ddl.actions {
            if let Ok(body) = &body {
                let _ = action.validate_inputs(&body.data, InputRules::Strict);
                let _ = action.validate_inputs(&body.data, InputRules::Lenient);
            }
            if let Ok((key, value)) = &pair
                && let Ok(data) = action.convert_cli_inputs([(key.as_str(), value.as_str())])
            {
                assert_eq!(action.validate_inputs(&data, InputRules::Strict), Ok(()));
            }
        }
    }
});
