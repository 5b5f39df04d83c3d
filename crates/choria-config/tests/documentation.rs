//! `docs/configuration.md` is what the key table says.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its data must stop")]

use std::path::Path;

#[test]
fn the_page_in_docs_is_the_key_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = choria_config::document::markdown();
    if std::env::var_os("CHORIA_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(
        stored == page,
        "docs/configuration.md is old; run CHORIA_UPDATE_DOCS=1 cargo test -p choria-config --test documentation"
    );
}

#[test]
fn the_page_about_custom_builds_names_every_variable_the_compiler_reads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/custom-builds.md")).unwrap();
    let source = std::fs::read_to_string(root.join("src/build_settings.rs")).unwrap();
    let read: Vec<&str> = source.split("option_env!(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(read.len() >= 20, "{read:?}");
    for variable in read {
        assert!(page.contains(&format!("| `{variable}` |")), "docs/custom-builds.md lacks {variable}");
        assert!(source.contains(&format!("//! | `{variable}` |")), "the module documentation lacks {variable}");
    }
}
