//! Any bytes as options of CONNECT, and, after a zero byte, as those of a second CONNECT: what is read is written to
//! options that read the same, and a second CONNECT changes only what it names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nats_proto::Connect;

fuzz_target!(|bytes: &[u8]| {
    let mut arguments = bytes.splitn(2, |byte| *byte == 0);
    let (first, second) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or(b"{}"));
    let Ok(mut connect) = Connect::parse(first) else { return };
    round_trip(&connect);
    let before = connect.clone();
    connect.merge(b"{}").expect("no options are options");
    assert_eq!(connect, before);
    if connect.merge(second).is_ok() {
        round_trip(&connect);
    }
});

fn round_trip(connect: &Connect) {
    let text = connect.to_json();
    assert_eq!(&Connect::parse(text.as_bytes()).expect("our own text is read back"), connect);
    // Options over themselves change nothing, and no secret is in what logs show.
    let mut merged = connect.clone();
    merged.merge(text.as_bytes()).expect("our own text is read back");
    assert_eq!(&merged, connect);
    let shown = format!("{connect:?}");
    assert!(connect.pass.len() < 12 || !shown.contains(&connect.pass) || text.matches(&connect.pass).count() > 1);
}
