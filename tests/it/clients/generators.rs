//! Generators read the `.proto` files, which have the option `debug_redact`. `story.py` and
//! `story.go` use those of their languages, and `story.mjs` loads the files with `@grpc/proto-loader`.

use std::os::unix::fs::symlink;

use super::scene::buf_generate;
use crate::support::{
    program::{stderr, stdout},
    tools::{node, node_module},
};

#[test]
fn buf_and_protoc_gen_es_generate_clients_of_typescript() {
    let folder = tempfile::tempdir().unwrap();
    symlink(node_module(""), folder.path().join("node_modules")).unwrap();
    let plugin = node_module("@bufbuild/protoc-gen-es/bin/protoc-gen-es");
    let template = serde_json::json!({"version": "v2", "plugins": [
        {"local": ["node", plugin], "out": folder.path(), "opt": ["target=js+dts", "import_extension=js"]},
    ]});
    buf_generate(&template, folder.path());

    let module = folder.path().join("kairos/identity/v1/session_service_pb.js");
    std::fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#).unwrap();
    let program = "import(process.argv[1]).then((file) => console.log(Object.keys(file.SessionService.method).join(' ')))";
    let methods = node().args(["-e", program]).arg(&module).output().unwrap();
    assert!(stdout(&methods).starts_with("refreshSession "), "{}{}", stdout(&methods), stderr(&methods));
    assert!(module.with_extension("d.ts").is_file());
}
