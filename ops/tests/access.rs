//! Who gets what: open paths, loopback, tokens and roles, on a real socket.

mod common;

use common::{Answer, get, started};
use tidings_core::Delivery;
use tidings_memory::MemoryTransport;
use tidings_ops::{Ops, OpsHandle, Role, Tokens};
use tidings_service::Router;

const VIEWER: &str = "viewer-token-0123456789";

fn tokens() -> Tokens {
    let tokens = Tokens::new().with_token(Role::Viewer, VIEWER).expect("a good token");
    let tokens = tokens.with_token(Role::Operator, "operator-token-0123456789").expect("a good token");
    tokens.with_token(Role::Admin, "admin-token-0123456789").expect("a good token")
}

/// Asks by loopback, whatever the endpoint is bound to.
fn ask(ops: &OpsHandle, path: &str, headers: &[(&str, &str)]) -> Answer {
    get(([127, 0, 0, 1], ops.local_addr().port()).into(), path, headers)
}

const PATHS: [(&str, bool); 4] = [("/livez", true), ("/readyz", true), ("/metrics", false), ("/status", false)];

#[tokio::test]
async fn probes_are_open_on_every_address_and_the_rest_on_loopback_only() {
    let (local, open) = (Ops::new().serve("127.0.0.1:0").unwrap(), Ops::new().serve("0.0.0.0:0").unwrap());
    for (path, is_open) in PATHS {
        assert_eq!(ask(&local, path, &[]).code, 200, "{path}");
        let elsewhere = ask(&open, path, &[]);
        assert_eq!(elsewhere.code, if is_open { 200 } else { 403 }, "{path}: {}", elsewhere.body);
    }
    // By a name that DNS leads here, or for another client.
    assert_eq!(ask(&local, "/status", &[("host", "rebound.example")]).code, 403);
    assert_eq!(ask(&local, "/status", &[("x-forwarded-for", "10.0.0.1")]).code, 403);
    assert_eq!(ask(&local, "/status", &[("forwarded", "for=10.0.0.1")]).code, 403);
}

#[tokio::test]
async fn metrics_are_open_where_allowed() {
    let open = Ops::new().with_open_metrics().with_tokens(tokens()).serve("0.0.0.0:0").unwrap();
    assert_eq!(ask(&open, "/metrics", &[]).code, 200);
    assert_eq!(ask(&open, "/status", &[]).code, 401);
}

#[tokio::test]
async fn a_token_of_any_role_reads_and_no_other_text_does() {
    let transport = MemoryTransport::new();
    let service = started(Router::new().on_topic("t", async |_: Delivery| {}), &transport).await;
    for address in ["127.0.0.1:0", "0.0.0.0:0"] {
        let ops = Ops::new().with_service(&service).with_tokens(tokens()).serve(address).unwrap();
        for (path, is_open) in PATHS {
            let without = ask(&ops, path, &[]);
            assert_eq!(without.code == 401, !is_open, "{path}");
            assert_eq!(without.head.contains("www-authenticate: bearer"), !is_open, "{path}");
            for role in ["viewer", "operator", "admin"] {
                let token = format!("Bearer {role}-token-0123456789");
                assert_ne!(ask(&ops, path, &[("authorization", &token)]).code, 401, "{path} as {role}");
            }
            let basic = format!("Basic {VIEWER}");
            for wrong in ["Bearer viewer-token-012345678", "Bearer viewer-token-01234567890", "Bearer", &basic] {
                assert_eq!(ask(&ops, path, &[("authorization", wrong)]).code == 401, !is_open, "{path}: {wrong}");
            }
        }
        let query = ask(&ops, &format!("/status?token={VIEWER}"), &[]);
        assert_eq!(query.code, 401, "a token in a URL ends in logs: it is not taken");
    }
}

#[tokio::test]
async fn mounted_routes_do_not_know_where_a_request_comes_from() {
    let router = axum::Router::new().nest("/ops", Ops::new().router());
    assert_eq!(common::ask(&router, "/ops/livez").await.0, 200);
    assert_eq!(common::ask(&router, "/ops/status").await.0, 403);
    let router = Ops::new().with_open_metrics().router();
    assert_eq!(common::ask(&router, "/metrics").await.0, 200);
}
