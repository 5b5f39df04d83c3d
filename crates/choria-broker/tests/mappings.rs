//! Subject mappings of account `choria`.
#![allow(clippy::unwrap_used)]

#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use lab::Lab;
use raw::Raw;

#[tokio::test]
async fn published_subjects_are_replaced_and_a_reload_replaces_the_mappings() {
    let lab = Lab::new();
    let mapping = |to: &str| {
        format!(
            "plugin.choria.network.mapping.names = a\nplugin.choria.network.mapping.a.source = in.*\n\
             plugin.choria.network.mapping.a.destination = {to}\n"
        )
    };
    let broker = lab.start(&mapping("out.{{wildcard(1)}}")).await;
    let mut member = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
    member.send("SUB > 1\r\nPUB in.x 1\r\nx\r\n").await;
    assert_eq!(member.message().await.subject, "out.x");

    lab.write_config(&mapping("other.$1"));
    assert_eq!(broker.reload().await.unwrap().changed, ["plugin.choria.network.mapping.names"]);
    member.send("PUB in.x 1\r\nx\r\n").await;
    assert_eq!(member.message().await.subject, "other.x");

    // One that cannot work: nothing changes, and the line says which and why.
    lab.write_config(&mapping("out.{{wildcard(2)}}"));
    let error = broker.reload().await.unwrap_err().to_string();
    assert!(error.contains("account choria: mapping of \"in.*\""), "{error}");
    member.send("PUB in.x 1\r\nx\r\n").await;
    assert_eq!(member.message().await.subject, "other.x");
}
