//! Selects a machine from the flags, with flyctl's rules and messages.

use std::fs;

use anyhow::{Context as _, Result, bail};
use tests::world::{Machine, World};

use crate::cli::Target;

/// The target of a session.
pub struct Destination {
    pub address: String,
    pub port: u16,
    pub user: String,
}

pub fn app<'w>(world: &'w World, flag: Option<&str>) -> Result<(String, &'w [Machine])> {
    let name = match flag.map(str::to_owned).or_else(app_from_environment) {
        Some(name) => name,
        None => app_from_file().context(
            "the config for your app is missing an app name, add an app field to the fly.toml \
             file or specify with the -a flag",
        )?,
    };
    match world.apps.get(&name) {
        Some(machines) => Ok((name, machines)),
        None => bail!("get app: Could not find App \"{name}\""),
    }
}

fn app_from_environment() -> Option<String> {
    std::env::var("FLY_APP").ok().filter(|name| !name.is_empty())
}

fn app_from_file() -> Option<String> {
    let text = fs::read_to_string("fly.toml").ok()?;
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("app")?.as_str()?.to_owned())
}

pub fn destination(world: &World, target: &Target) -> Result<Destination> {
    let (app, machines) = app(world, target.app.as_deref())?;
    let machine = match &target.address {
        Some(address) => by_address(&app, machines, address)?,
        None => by_flags(&app, machines, target)?,
    };
    Ok(Destination {
        address: machine.private_ip.clone(),
        port: container_port(machine, target.container.as_deref())?,
        // flyctl's default is root, even if the tests do not run as root.
        user: match target.user.as_str() {
            "root" => world.ssh_user.clone(),
            other => other.to_owned(),
        },
    })
}

fn by_address<'w>(app: &str, machines: &'w [Machine], address: &str) -> Result<&'w Machine> {
    let named = |machine: &Machine| format!("{}.vm.{app}.internal", machine.id) == address;
    let found = machines.iter().find(|machine| machine.private_ip == address || named(machine));
    found.filter(|machine| machine.started()).with_context(|| {
        format!("error connecting to SSH server: dial: lookup {address}: no such host")
    })
}

fn by_flags<'w>(app: &str, machines: &'w [Machine], target: &Target) -> Result<&'w Machine> {
    let mut started: Vec<&Machine> = machines.iter().filter(|machine| machine.started()).collect();
    if started.is_empty() {
        bail!(
            "app {app} has no started VMs.\nIt may be unhealthy or not have been deployed yet.\n\
             Try the following command to verify:\n\nfly status"
        );
    }
    if let Some(region) = &target.region {
        started.retain(|machine| machine.region == *region);
        if started.is_empty() {
            bail!("app {app} has no VMs in region {region}");
        }
    }
    if let Some(group) = &target.process_group {
        started.retain(|machine| machine.process_group == *group);
        if started.is_empty() {
            bail!("app {app} has no VMs in process group {group}");
        }
    }
    if let Some(id) = &target.machine {
        let found = started.into_iter().find(|machine| machine.id == *id);
        return found.with_context(|| format!("--machine=\"{id}\" not found/started"));
    }
    let first = started[0];
    if started.len() > 1 {
        if target.select {
            bail!("prompt: non interactive");
        }
        // On stdout, before the command's own output, even with --quiet.
        println!("No machine specified, using {} in region {}", first.id, first.region);
    }
    Ok(first)
}

fn container_port(machine: &Machine, wanted: Option<&str>) -> Result<u16> {
    let containers = &machine.containers;
    if let Some(wanted) = wanted {
        let found = containers.iter().find(|container| container.name == wanted);
        let found = found.with_context(|| format!("container {wanted} not present"))?;
        return Ok(found.port);
    }
    let Some(first) = containers.first() else {
        return Ok(machine.port);
    };
    if containers.len() > 1 {
        println!("No container specified, using {}", first.name);
    }
    Ok(first.port)
}
