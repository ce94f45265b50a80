//! Over a real socket, with as much of an HTTP client as that takes.

use std::future::pending;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::migrate::{self, Kind};
use crate::store::Store;
use crate::{serve, setup};

struct Server {
    address: SocketAddr,
    /// Stops the service when it is dropped.
    _runtime: Runtime,
    dir: TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        setup::run(dir.path(), 20, &mut Vec::new()).unwrap();
        Self::on(dir)
    }

    fn on(dir: TempDir) -> Self {
        let store = Store::open(dir.path()).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve::until(pending(), listener, store));
        Self { address, _runtime: runtime, dir }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "")
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, &body.to_string())
    }

    fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("application/json"), "{answer}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    /// The ids that a search finds.
    fn found(&self, query: &str) -> Vec<i64> {
        let (status, rows) = self.get(&format!("/orgs/wren/pull-requests?{query}"));
        assert_eq!(status, 200, "{rows}");
        rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    }
}

#[test]
fn an_organization_with_pull_requests_and_reviews() {
    let server = Server::start();
    assert_eq!(server.get("/health"), (200, json!({"status": "ok"})));
    assert_eq!(
        server.post("/orgs", &json!({"id": "wren", "name": "Wren"})),
        (201, json!({"id": "wren"}))
    );
    assert!(server.dir.path().join("tenant_wren.db").exists());

    for (id, title) in [(1, "Fix the parser"), (2, "Fix the \"lexer\""), (3, "Drop the parser")] {
        let new = json!({"repository": "api", "title": title, "body": "…", "author": "ada"});
        assert_eq!(server.post("/orgs/wren/pull-requests", &new), (201, json!({"id": id})));
    }
    let review = json!({"reviewer": "bela", "state": "changes_requested", "body": "why?"});
    assert_eq!(server.post("/orgs/wren/pull-requests/2/reviews", &review), (201, json!({"id": 1})));

    let stats = json!({"repositories": 1, "pull_requests": 3, "reviews": 1});
    assert_eq!(server.get("/orgs/wren/stats"), (200, stats));
    let (_, organizations) = server.get("/orgs");
    assert_eq!(organizations[2], json!({"id": "wren", "name": "Wren", "pull_request_count": 3}));

    let (_, newest) = server.get("/orgs/wren/pull-requests?limit=1");
    assert_eq!(newest.as_array().unwrap().len(), 1);
    assert_eq!((&newest[0]["repository"], &newest[0]["number"]), (&json!("api"), &json!(3)));
    assert_eq!((&newest[0]["state"], &newest[0]["body"]), (&json!("open"), &json!("…")));

    assert_eq!(server.found("q=fix"), [2, 1]);
    assert_eq!(server.found("q=fix+parser"), [1]);
    assert_eq!(server.found("q="), [3, 2, 1]);
    // None of it is read as the query language of FTS5.
    assert_eq!(server.found("q=%22lexer"), [2]);
    for query in ["q=NOT", "q=title:", "q=(", "q=a%00b", "q=%22", "q=*", "q=--", "limit=0"] {
        assert_eq!(server.found(query), [0; 0], "{query}");
    }
}

#[test]
fn errors_are_json_with_the_right_status() {
    let server = Server::start();
    let pull_request = json!({"repository": "api", "title": "t", "body": "", "author": "ada"});
    let untitled = json!({"repository": "api", "title": " ", "body": "", "author": "ada"});
    let review = json!({"reviewer": "bela", "state": "approved", "body": ""});
    let misjudged = json!({"reviewer": "bela", "state": "great", "body": ""});
    let long = "x".repeat(33);
    for (status, (actual, body)) in [
        (400, server.post("/orgs", &json!({"id": "../etc", "name": "x"}))),
        (400, server.post("/orgs", &json!({"id": "", "name": "x"}))),
        (400, server.post("/orgs", &json!({"id": long, "name": "x"}))),
        (400, server.post("/orgs", &json!({"id": "wren", "name": ""}))),
        (409, server.post("/orgs", &json!({"id": "iris", "name": "again"}))),
        (422, server.post("/orgs", &json!({"id": "wren"}))),
        (400, server.send("POST", "/orgs", "{")),
        (404, server.get("/orgs/wren/pull-requests")),
        (404, server.get("/orgs/..%2Fdata/stats")),
        (404, server.post("/orgs/wren/pull-requests", &pull_request)),
        (400, server.post("/orgs/iris/pull-requests", &untitled)),
        (400, server.get("/orgs/iris/pull-requests?limit=-1")),
        (404, server.post("/orgs/iris/pull-requests/99/reviews", &review)),
        (400, server.post("/orgs/iris/pull-requests/x/reviews", &review)),
        (422, server.post("/orgs/iris/pull-requests/1/reviews", &misjudged)),
        (404, server.get("/nowhere")),
        (405, server.send("DELETE", "/orgs", "")),
    ] {
        assert_eq!(actual, status, "{body}");
        assert!(!body["error"].as_str().unwrap().is_empty(), "{body}");
    }
    let (_, organizations) = server.get("/orgs");
    assert_eq!(organizations.as_array().unwrap().len(), 2);
    assert!(!server.dir.path().join("tenant_wren.db").exists());
}

#[test]
fn a_lost_database_is_not_replaced_by_an_empty_one() {
    let server = Server::start();
    let path = server.dir.path().join("tenant_juno.db");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.get("/orgs/juno/stats"), (500, json!({"error": "internal error"})));
    assert!(!path.exists());
}

/// Real data, as far as the tests of this repository have any: what production
/// has, cut down by `cargo xtask refresh-fixtures`.
#[test]
fn the_fixtures_are_served() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let dir = tempfile::tempdir().unwrap();
    for (fixture, database) in [("data.db", "data.db"), ("tenant.db", "tenant_iris.db")] {
        std::fs::copy(fixtures.join(fixture), dir.path().join(database)).unwrap();
        let conn = Connection::open(dir.path().join(database)).unwrap();
        super::assert_sound(&conn);
        let kind = Kind::of(database.as_ref(), &conn).unwrap();
        // At the newest schema: migrations that were added since show here.
        assert_eq!(migrate::user_version(&conn).unwrap(), kind.migrations().len(), "{fixture}");
    }
    let server = Server::on(dir);
    let stats = json!({"repositories": 14, "pull_requests": 100, "reviews": 185});
    assert_eq!(server.get("/orgs/iris/stats"), (200, stats));
    let (_, found) = server.get("/orgs/iris/pull-requests?q=cache&limit=50");
    let titles: Vec<_> = found.as_array().unwrap().iter().map(|row| &row["title"]).collect();
    assert_eq!(titles.len(), 7, "{titles:?}");
    // The service goes on writing where production had got to.
    let new = json!({"repository": "api", "title": "Cache it", "body": "", "author": "ada"});
    let (status, created) = server.post("/orgs/iris/pull-requests", &new);
    assert_eq!((status, created["id"].as_i64() > Some(605)), (201, true), "{created}");
    let (_, found) = server.get("/orgs/iris/pull-requests?q=cache+it");
    assert_eq!(found[0]["id"], created["id"]);
}
