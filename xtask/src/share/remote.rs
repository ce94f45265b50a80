//! The place of a store: a bucket or a directory. Only this file connects to it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use futures_util::future::{Either, select};
use jiff::Timestamp;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig,
};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::Failure;
use crate::interrupt::{self, Interrupted};

/// How long one object may take: a few MiB over a bad line.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a store that fails is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a request looks whether this process was asked to end.
const LOOK: Duration = Duration::from_millis(50);
/// The first of these that is set says how to sign requests.
const CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

pub struct Remote {
    store: Arc<dyn ObjectStore>,
    url: String,
    handle: Handle,
    bytes: AtomicU64,
    /// Ends the thread that drives the connections when it is dropped.
    _running: oneshot::Sender<()>,
}

impl Remote {
    /// Opens the place; `writes` also creates the directory of a `file:` URL.
    ///
    /// # Errors
    ///
    /// It is no directory, or there are no credentials.
    pub fn open(url: &str, writes: bool) -> Result<Self> {
        let store = match url.strip_prefix("file://") {
            Some(dir) => directory(Path::new(dir), writes)?,
            None => bucket(url)?,
        };
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .build()
            .context("cannot start a runtime")?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(ended));
        let (url, bytes) = (url.to_owned(), AtomicU64::new(0));
        Ok(Self { store, url, handle, bytes, _running: running })
    }

    /// The bytes of the objects that were read and written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// An object of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is larger.
    pub fn get(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let read = async {
            let found = self.store.get(&Key::from(path)).await?;
            let size = found.meta.size;
            if size > limit {
                return Ok(Err(size));
            }
            found.bytes().await.map(Ok)
        };
        match self.run(read)? {
            Ok(Ok(bytes)) => {
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(Some(bytes.into()))
            }
            Ok(Err(size)) => Err(Failure::new(format!("{path} in {} has {size} bytes", self.url))
                .hint("it is not what was published: use another url in [share]")
                .into()),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", path, error)),
        }
    }

    /// # Errors
    ///
    /// It cannot be written.
    pub fn put(&self, path: &str, content: Vec<u8>) -> Result<()> {
        match self.write(path, content, PutMode::Overwrite)? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed("write", path, error)),
        }
    }

    /// Writes an object unless there is one; returns whether it did.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        match self.write(path, content, PutMode::Create)? {
            Ok(()) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("write", path, error)),
        }
    }

    fn write(&self, path: &str, content: Vec<u8>, mode: PutMode) -> Result<Result<(), Error>> {
        let (key, size) = (Key::from(path), content.len() as u64);
        let options = PutOptions::from(mode);
        let written = self.run(self.store.put_opts(&key, content.into(), options))?;
        Ok(written.map(|_| {
            self.bytes.fetch_add(size, Ordering::Relaxed);
        }))
    }

    /// The objects below a path, each with its size and time.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn list(&self, path: &str) -> Result<Vec<(String, u64, Timestamp)>> {
        let found = self.run(self.store.list(Some(&Key::from(path))).try_collect::<Vec<_>>())?;
        let found = found.map_err(|error| self.failed("list", path, error))?;
        let known = found.into_iter().map(|object| {
            let time = Timestamp::from_second(object.last_modified.timestamp())?;
            Ok((object.location.to_string(), object.size, time))
        });
        known.collect()
    }

    /// # Errors
    ///
    /// It cannot be deleted.
    pub fn delete(&self, path: &str) -> Result<()> {
        match self.run(self.store.delete(&Key::from(path)))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", path, error)),
        }
    }

    /// Waits for a request, unless this process is asked to end.
    fn run<T>(&self, request: impl Future<Output = T>) -> Result<T> {
        let asked = async {
            while !interrupt::is_asked() {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.handle.block_on(async {
            match select(Box::pin(request), Box::pin(asked)).await {
                Either::Left((result, _)) => Ok(result),
                Either::Right(_) => Err(Interrupted.into()),
            }
        })
    }

    fn failed(&self, verb: &str, path: &str, error: Error) -> anyhow::Error {
        let hint = match &error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "these credentials may not do that: check AWS_ACCESS_KEY_ID and the rights of its key"
            }
            _ if self.url.starts_with("file:") => "check url in [share], and the directory",
            _ => "check the network, url in [share], AWS_ENDPOINT_URL and AWS_REGION",
        };
        let what = format!("cannot {verb} {path} in {}", self.url);
        anyhow::Error::from(error).context(Failure::new(what).hint(hint))
    }
}

fn directory(dir: &Path, writes: bool) -> Result<Arc<dyn ObjectStore>> {
    if writes {
        fs_err::create_dir_all(dir)?;
    }
    let store = LocalFileSystem::new_with_prefix(dir).with_context(|| {
        Failure::new(format!("{} is no directory of a store", dir.display()))
            .hint("check url in [share]; cargo xtask snapshots publish creates it")
    })?;
    Ok(Arc::new(store.with_fsync(true)))
}

fn bucket(url: &str) -> Result<Arc<dyn ObjectStore>> {
    if CREDENTIALS.iter().all(|name| std::env::var_os(name).is_none()) {
        return Err(Failure::usage(format!("there are no credentials for {url}"))
            .hint("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, unless it is Amazon, AWS_ENDPOINT_URL")
            .into());
    }
    // An error means that another provider was installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = endpoint.iter().find_map(|name| std::env::var(name).ok());
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let options = ClientOptions::new().with_timeout(LIMIT).with_allow_http(is_plain);
    let retry = RetryConfig { max_retries: 4, retry_timeout: PATIENCE, ..RetryConfig::default() };
    let (bucket, prefix) = url.trim_start_matches("s3://").split_once('/').unwrap_or((url, ""));
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket.trim_start_matches("s3://"))
        .with_client_options(options)
        .with_retry(retry)
        .build()
        .with_context(|| format!("cannot use {url}"))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}
