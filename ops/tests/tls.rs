//! TLS: an answer through it, and files that are wrong.

mod common;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use common::{connect, get, read, until};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tidings_core::{ErrorKind, Transport};
use tidings_memory::MemoryTransport;
use tidings_ops::Ops;
use tidings_ops_api::client::{OpsConfig, OpsTransport};

struct Files {
    _directory: TempDir,
    certificate: PathBuf,
    key: PathBuf,
    root: rustls::pki_types::CertificateDer<'static>,
}

fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is valid");
    let directory = tempfile::tempdir().expect("it is valid");
    let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("it is valid");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("it is valid");
    Files { _directory: directory, certificate, key, root: made.cert.der().clone() }
}

fn client(root: &rustls::pki_types::CertificateDer<'static>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("it is valid");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("it is valid");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("it is valid"))
        .expect("it is valid")
}

#[test]
fn an_answer_arrives_through_tls_and_not_without() {
    let files = files();
    let ops = Ops::new().with_tls(&files.certificate, &files.key).serve("127.0.0.1:0").unwrap();
    let mut stream = StreamOwned::new(client(&files.root), connect(ops.local_addr()));
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let answer = read(&mut stream);
    assert_eq!(answer.code, 200);
    assert!(answer.body.contains("\"services\""), "{answer:?}");
    assert_ne!(get(ops.local_addr(), "/livez", &[]).code, 200, "plain text is no handshake");
}

#[test]
fn clients_that_do_not_finish_their_handshake_keep_no_probe_out() {
    let files = files();
    let ops = Ops::new().with_tls(&files.certificate, &files.key).serve("127.0.0.1:0").unwrap();
    let silent: Vec<_> = (0..Ops::MAX_CONNECTIONS + 8).map(|_| connect(ops.local_addr())).collect();
    until("a probe passes", || {
        let mut stream = StreamOwned::new(client(&files.root), connect(ops.local_addr()));
        let sent = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        sent.is_ok() && read(&mut stream).code == 200
    });
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_the_api_trusts_the_roots_that_it_is_given_and_no_others() {
    let (files, foreign) = (files(), files());
    let ops = Ops::new().with_admin(MemoryTransport::new()).with_tls(&files.certificate, &files.key);
    let ops = ops.serve("127.0.0.1:0").unwrap();
    let config = || OpsConfig::new(format!("https://localhost:{}", ops.local_addr().port()));
    let transport = OpsTransport::open(config().with_roots(&files.certificate)).await.unwrap();
    assert!(transport.admin().await.unwrap().list_topics().await.unwrap().is_empty());
    for config in [config(), config().with_roots(&foreign.certificate)] {
        let error = OpsTransport::open(config).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("certificate"), "{error}");
    }
    let missing = OpsTransport::open(config().with_roots("/nowhere/ca.pem")).await.unwrap_err();
    assert!(missing.kind() == ErrorKind::Invalid && missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
}

#[test]
fn a_wrong_file_is_named() {
    let (good, other) = (files(), files());
    let fails = |certificate: &PathBuf, key: &PathBuf| {
        let error = Ops::new().with_tls(certificate, key).serve("127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let missing = PathBuf::from("/nowhere/tls.crt");
    assert!(fails(&missing, &good.key).contains("certificate in /nowhere/tls.crt"));
    assert!(fails(&good.certificate, &missing).contains("private key in /nowhere/tls.crt"));
    let swapped = fails(&good.key, &good.certificate);
    assert!(swapped.contains(&good.key.display().to_string()), "{swapped}");
    let foreign = fails(&good.certificate, &other.key);
    assert!(foreign.contains(&other.key.display().to_string()), "{foreign}");
}
