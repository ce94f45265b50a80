//! The objects of a bucket or of a directory of this machine.

use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use futures_util::future::{Either, select};
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::access::Access;
use super::kind::{Found, Objects};
use super::{explain, place};
use crate::error::Failure;
use crate::interrupt::{self, Interrupted};

/// How often a request looks whether this process was asked to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long the end of a command may wait for its last request.
const LAST: Duration = Duration::from_secs(5);

pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    access: Access,
    handle: Handle,
    /// Ends the thread that drives the connections when it is dropped.
    _running: oneshot::Sender<()>,
}

impl Bucket {
    /// Opens the place; `writes` also creates the directory of a `file:` URL.
    ///
    /// # Errors
    ///
    /// It is no directory, or there are no credentials.
    pub fn open(access: &Access, writes: bool) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .build()
            .context("cannot start a runtime")?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(ended));
        let store = run(&handle, place::open(access, writes))??;
        Ok(Self { store, access: access.clone(), handle, _running: running })
    }

    fn write(&self, path: &str, content: Vec<u8>, mode: PutMode) -> Result<Result<(), Error>> {
        self.share_as_root();
        let key = Key::from(path);
        let options = PutOptions::from(mode);
        let written = run(&self.handle, self.store.put_opts(&key, content.into(), options))?;
        Ok(written.map(|_| ()))
    }

    /// Gives new files and directories of a directory its own permissions: those who can read it, or
    /// write to it, can do so with all objects. Only commands for this store write to one.
    fn share_as_root(&self) {
        let (scheme, first, path) = self.access.parts();
        if scheme == "file"
            && let Ok(root) = std::fs::metadata(format!("{first}/{path}"))
        {
            umask(Mode::from_raw_mode(!root.mode() & 0o777));
        }
    }

    fn failed(&self, verb: &str, path: &str, error: Error) -> anyhow::Error {
        let (named_by, place) = (self.access.named_by, self.access.shown());
        let what = match path {
            "" => format!("cannot {verb} {place}"),
            path => format!("cannot {verb} {path} in {place}"),
        };
        if self.access.url.starts_with("file:") {
            let hint = format!("check {named_by}, and the directory");
            return anyhow::Error::from(error).context(Failure::new(what).hint(hint));
        }
        // It has what the store has answered.
        let said = anyhow::Error::from(error);
        let said = explain::once(said.chain().map(ToString::to_string));
        let known = explain::explain(&what, &said);
        known
            .unwrap_or_else(|| {
                Failure::new(format!("{what}{}", explain::detail(&said)))
                    .hint(format!("check the network, {named_by}, AWS_ENDPOINT_URL and AWS_REGION"))
            })
            .into()
    }
}

impl Objects for Bucket {
    fn get(&self, path: &str, limit: u64) -> Result<Option<Found>> {
        let read = async {
            let found = self.store.get(&Key::from(path)).await?;
            let size = found.meta.size;
            if size > limit {
                return Ok(Found::TooLarge(size));
            }
            found.bytes().await.map(|bytes| Found::Content(bytes.into()))
        };
        match run(&self.handle, read)? {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", path, error)),
        }
    }

    fn put(&self, path: &str, content: Vec<u8>) -> Result<()> {
        let written = self.write(path, content, PutMode::Overwrite)?;
        written.map_err(|error| self.failed("write", path, error))
    }

    fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        match self.write(path, content, PutMode::Create)? {
            Ok(()) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("write", path, error)),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<(String, u64, i64)>> {
        let listed = self.store.list(Some(&Key::from(path))).try_collect::<Vec<_>>();
        let found = run(&self.handle, listed)?.map_err(|error| self.failed("list", path, error))?;
        let known = found.into_iter().map(|object| {
            (object.location.to_string(), object.size, object.last_modified.timestamp())
        });
        Ok(known.collect())
    }

    fn directories(&self, path: &str) -> Result<Vec<String>> {
        let key = Key::parse(path).with_context(|| format!("{path:?} is an odd name"))?;
        let found = run(&self.handle, self.store.list_with_delimiter(Some(&key)))?;
        let found = found.map_err(|error| self.failed("list", path, error))?;
        let names = found.common_prefixes.iter().filter_map(Key::filename);
        Ok(names.map(str::to_owned).collect())
    }

    fn delete(&self, path: &str) -> Result<()> {
        match run(&self.handle, self.store.delete(&Key::from(path)))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", path, error)),
        }
    }

    fn delete_last(&self, path: &str) {
        let key = Key::from(path);
        self.handle.block_on(async {
            let _ = tokio::time::timeout(LAST, self.store.delete(&key)).await;
        });
    }
}

/// Waits for a request, unless this process is asked to end.
fn run<T>(handle: &Handle, request: impl Future<Output = T>) -> Result<T> {
    let asked = async {
        while !interrupt::is_asked() {
            tokio::time::sleep(LOOK).await;
        }
    };
    handle.block_on(async {
        match select(Box::pin(request), Box::pin(asked)).await {
            Either::Left((result, _)) => Ok(result),
            Either::Right(_) => Err(Interrupted.into()),
        }
    })
}
