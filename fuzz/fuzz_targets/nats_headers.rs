//! Any bytes as a block of headers: what is read is written to a block that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nats_proto::HeaderMap;

fuzz_target!(|bytes: &[u8]| {
    let Ok(headers) = HeaderMap::parse(bytes) else { return };
    let written = headers.to_vec();
    let again = HeaderMap::parse(&written).expect("our own block is read back");
    assert_eq!(again, headers);
    assert_eq!(again.to_vec(), written);
    for (name, value) in headers.iter() {
        // Values are found under their names, and what may be appended may be sent.
        assert!(headers.get(name).is_some());
        let mut one = HeaderMap::new();
        if one.append(name, value).is_ok() {
            assert_eq!(HeaderMap::parse(&one.to_vec()).expect("our own block is read back").iter().count(), 1);
        }
    }
});
