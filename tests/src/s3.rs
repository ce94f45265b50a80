//! A bucket of a real server that speaks S3.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::process::Running;
use crate::python;

const VERSIONS: &str = include_str!("../s3/requirements.txt");
/// How many requests the server answers before it asks who is there.
const UNCHECKED: &str = "INITIAL_NO_AUTH_ACTION_COUNT";

/// The server runs until this is dropped.
pub struct Bucket {
    _running: Running,
    address: String,
}

impl Bucket {
    /// With any credentials.
    pub fn new(name: &str) -> Bucket {
        Self::start(name, "1000000")
    }

    /// No credentials will do.
    pub fn closed(name: &str) -> Bucket {
        Self::start(name, "1")
    }

    fn start(name: &str, unchecked: &str) -> Bucket {
        let mut command =
            crate::process::command(python::programs("s3", VERSIONS).join("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", "0"]).env(UNCHECKED, unchecked);
        let mut running = Running::start(&mut command);
        running.wait_for_stderr("Press CTRL+C");
        let said = running.stderr_so_far();
        let (_, address) = said.split_once("http://").expect("it says where it listens");
        let address = address.split_whitespace().next().expect("an address").to_owned();
        let mut stream = TcpStream::connect(&address).expect("it listens");
        let auth = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(stream, "PUT /{name} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {auth}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Bucket { _running: running, address }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> Option<u16> {
        self.address.rsplit_once(':')?.1.parse().ok()
    }

    /// What a program needs to use it.
    pub fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    }
}
