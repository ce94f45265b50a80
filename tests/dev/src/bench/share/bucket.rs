//! The server of S3 and the link to it.

use anyhow::Result;
use serde::Deserialize;
use std::path::Path;
use xshell::{Cmd, Shell, cmd};

use crate::bench::pulls::server::{Asked, Shape};

pub struct Bucket {
    relay: Asked,
    way: Way,
}

/// How to connect, and the keys of a member.
#[derive(Deserialize)]
struct Way {
    port: u16,
    bucket: String,
    identity: String,
    recipient: String,
}

impl Bucket {
    /// Starts a server with nothing in it.
    pub fn start(sh: &Shell, program: &Path) -> Result<Self> {
        let mut relay = Asked::start(cmd!(sh, "{program}"))?;
        let way = serde_json::from_str(&relay.read()?)?;
        Ok(Self { relay, way })
    }

    /// The URL of a directory in it.
    pub fn url(&self, dir: &str) -> String {
        format!("s3://{}/{dir}", self.way.bucket)
    }

    /// What `rclone` calls a directory in it.
    pub fn remote(&self, dir: &str) -> String {
        format!("team:{}/{dir}", self.way.bucket)
    }

    pub fn recipient(&self) -> &str {
        &self.way.recipient
    }

    pub fn shape(&mut self, shape: Shape) -> Result<()> {
        self.relay.shape(shape)
    }

    /// The bytes in both directions since the last [`Self::shape`].
    pub fn passed(&mut self) -> Result<u64> {
        Ok(self.relay.passed()?.iter().sum())
    }

    /// The command of a member, who may also use `rclone`.
    pub fn member<'a>(&self, command: Cmd<'a>) -> Cmd<'a> {
        let endpoint = format!("http://127.0.0.1:{}", self.way.port);
        let (id, key) = ("member", "not secret");
        let variables = [
            ("XTASK_SHARE_IDENTITY", &*self.way.identity),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", key),
            ("RCLONE_CONFIG_TEAM_TYPE", "s3"),
            ("RCLONE_CONFIG_TEAM_PROVIDER", "Other"),
            ("RCLONE_CONFIG_TEAM_ENDPOINT", &endpoint),
            ("RCLONE_CONFIG_TEAM_ACCESS_KEY_ID", id),
            ("RCLONE_CONFIG_TEAM_SECRET_ACCESS_KEY", key),
        ];
        // A variable with which `rclone` does not start: nothing here uses TLS.
        command.envs(variables).env_remove("AWS_CA_BUNDLE")
    }
}
