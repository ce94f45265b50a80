//! The flags that choose the server, and with the settings become a connection.

use anyhow::Result;
use clap_complete::engine::ArgValueCompleter;

use crate::completion;
use crate::config::{self, Settings, Way};
use crate::context::Context;
use crate::error::Failure;
use crate::server::transport::{Target, Transport, Via, plain_word};

/// To be flattened into the flags of a command.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// Use this Fly.io app [default: $FLY_APP, `app` in db.toml, `app` in fly.toml]
    #[arg(long, value_parser = app_name)]
    app: Option<String>,
    /// Use this machine [default: the one that has the volume]
    #[arg(long, value_name = "ID", value_parser = word)]
    machine: Option<String>,
    /// Use a machine in this region
    #[arg(long, value_parser = word)]
    region: Option<String>,
    /// Use a machine of this process group
    #[arg(long, value_name = "GROUP", value_parser = word)]
    process_group: Option<String>,
    /// Use this container of the machine
    #[arg(long, value_parser = word)]
    container: Option<String>,
    /// Use this directory on the server [default: `remote-dir` in db.toml, the mount in fly.toml]
    #[arg(long, value_name = "DIR")]
    remote_dir: Option<String>,
    /// Use [source.NAME] of db.toml
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::sources))]
    source: Option<String>,
    /// Reach the server with fly, ssh:USER@HOST[:PORT], docker:CONTAINER, exec:COMMAND or local:DIR;
    /// or restore what Litestream has replicated: litestream, litestream:URL [default: `via` in
    /// db.toml, else fly]; pull-db also from `share`, the store of the team
    #[arg(long)]
    via: Option<Way>,
}

impl ServerArgs {
    /// The settings, with those of the source that is named.
    ///
    /// # Errors
    ///
    /// There is no such source.
    pub fn of_source(&self, settings: Settings) -> Result<Settings> {
        match &self.source {
            Some(name) => settings.of_source(name),
            None => Ok(settings),
        }
    }

    /// The table of `db.toml` that has the source.
    pub fn source_table(&self) -> Vec<&str> {
        self.source.iter().flat_map(|name| ["source", name]).collect()
    }

    /// The keys of `db.toml` for these flags, and their values.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let via = self.via.as_ref().map(ToString::to_string);
        let values = [
            ("app", &self.app),
            ("via", &via),
            ("machine", &self.machine),
            ("region", &self.region),
            ("remote-dir", &self.remote_dir),
        ];
        values.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }

    /// How the server is reached.
    pub fn via(&self, settings: &Settings) -> Via {
        match self.way(settings) {
            Some(Way::Server(via)) => via.clone(),
            Some(Way::Share) | None => Via::Fly,
        }
    }

    fn way<'a>(&'a self, settings: &'a Settings) -> Option<&'a Way> {
        self.via.as_ref().or(settings.via.as_ref())
    }

    /// Whether the snapshots of the team are meant, and no server.
    pub fn is_share(&self, settings: &Settings) -> bool {
        matches!(self.way(settings), Some(Way::Share))
    }

    /// The flags that choose a server and are given.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("--app", &self.app),
            ("--machine", &self.machine),
            ("--region", &self.region),
            ("--process-group", &self.process_group),
            ("--container", &self.container),
            ("--remote-dir", &self.remote_dir),
        ];
        flags.into_iter().filter_map(|(flag, value)| value.is_some().then_some(flag))
    }

    /// The server that the flags and the settings name. `for_fly` are the flags of the command that
    /// need `fly`, and whether each is given.
    ///
    /// # Errors
    ///
    /// A value is missing or invalid.
    pub fn transport<'a>(
        &self,
        cx: &'a Context,
        settings: &Settings,
        for_fly: &[(&str, bool)],
        impatient: bool,
    ) -> Result<Transport<'a>> {
        if self.is_share(settings) {
            return Err(Failure::usage("share is for pull-db: a store has no server")
                .hint("say how the server is reached: --via fly, --via ssh:USER@HOST, …")
                .into());
        }
        let via = self.via(settings);
        let directory = self.directory(settings, &via)?;
        let given = match via {
            Via::Fly if self.app.is_none() => settings.fly_app()?,
            _ => self.app.clone().or_else(|| settings.app.clone()),
        };
        let app = match (&via, &given) {
            (_, Some(app)) => app_name(app).map_err(|why| {
                Failure::usage(format!("{app:?} is not the name of an app: {why}"))
            })?,
            (Via::Fly, None) => {
                return Err(Failure::usage("no Fly.io app given")
                    .hint(settings.other_fly_configs().unwrap_or_else(|| {
                        "give --app, or set FLY_APP, `app` in xtask/db.toml, or `app` in fly.toml".to_owned()
                    }))
                    .into());
            }
            (_, None) => String::new(),
        };
        let choices = [
            ("--machine", self.machine.is_some()),
            ("--region", self.region.is_some()),
            ("--process-group", self.process_group.is_some()),
            ("--container", self.container.is_some()),
        ];
        if via != Via::Fly
            && let Some((flag, _)) = for_fly.iter().chain(&choices).find(|(_, given)| *given)
        {
            return Err(Failure::usage(format!("{flag} works with `fly` only"))
                .hint(format!("leave out {flag}, or --via"))
                .into());
        }
        let target = self.target(settings, app, directory)?;
        let transport = Transport::new(&cx.sh, via, target, impatient);
        Ok(transport.with_user(settings.user.clone()))
    }

    /// Flags that choose a machine go over all settings that do.
    fn target(&self, settings: &Settings, app: String, directory: String) -> Result<Target> {
        let is_chosen =
            self.machine.is_some() || self.region.is_some() || self.process_group.is_some();
        let setting = |key: &str, value: &Option<String>| {
            let value = value.as_ref().filter(|_| !is_chosen).map(|value| word(value)).transpose();
            value.map_err(|why| Failure::usage(format!("{key} in xtask/db.toml: {why}")))
        };
        Ok(Target {
            app,
            machine: self.machine.clone().or(setting("machine", &settings.machine)?),
            region: self.region.clone().or(setting("region", &settings.region)?),
            process_group: self.process_group.clone(),
            container: self.container.clone(),
            directory,
            any: settings.any_machine && !is_chosen,
        })
    }

    fn directory(&self, settings: &Settings, via: &Via) -> Result<String> {
        if let (Via::Local(_), Some(_)) = (via, &self.remote_dir) {
            let failure =
                Failure::usage("--remote-dir does not work with local:, which names the directory");
            return Err(failure.hint("--via local:DIR").into());
        }
        let directory = match (via, &self.remote_dir) {
            (Via::Local(dir), _) => Some(std::path::absolute(dir)?.to_string_lossy().into_owned()),
            // Until they are restored, it is what their names are relative to.
            (Via::Litestream(_), None) => {
                Some(settings.remote_dir()?.unwrap_or_else(|| "/".to_owned()))
            }
            (_, None) => settings.remote_dir()?,
            (_, given) => given.clone(),
        };
        let Some(directory) = directory else {
            return Err(Failure::usage("remote-dir is not set (often \"/data\")")
                .hint(settings.other_fly_configs().unwrap_or_else(|| {
                    "set `remote-dir` in xtask/db.toml, or [[mounts]] in fly.toml; or give --remote-dir".to_owned()
                }))
                .into());
        };
        config::directory("directory on the server", &directory)?;
        if directory.starts_with('/') {
            Ok(directory)
        } else {
            Err(Failure::usage(format!("{directory:?} on the server is not an absolute path"))
                .hint("begin it with a slash, such as /data")
                .into())
        }
    }
}

fn app_name(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_ascii_uppercase()) || text.len() > 63 {
        return Err("at most 63 lower-case letters, digits and dashes".to_owned());
    }
    plain_word(text, "-")
}

fn word(text: &str) -> Result<String, String> {
    plain_word(text, "._-")
}
