//! `fly machine list`, and the commands that change the state of a machine.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tests::world::{Machine, World};

use crate::cli::{MachineChange, MachineList};
use crate::select;

pub fn list(world: &World, list: &MachineList) -> Result<()> {
    let (app, machines) = select::app(world, list.app.as_deref())?;
    if list.json {
        let machines: Vec<Value> = machines.iter().map(describe).collect();
        println!("{}", serde_json::to_string_pretty(&machines)?);
        return Ok(());
    }
    if list.quiet {
        machines.iter().for_each(|machine| println!("{}", machine.id));
        return Ok(());
    }
    println!("{} machines have been retrieved from app {app}.", machines.len());
    println!("ID\tNAME\tSTATE\tREGION");
    for Machine { id, name, state, region, .. } in machines {
        println!("{id}\t{name}\t{state}\t{region}");
    }
    Ok(())
}

fn describe(machine: &Machine) -> Value {
    let mounts: Vec<Value> = (machine.mounts.iter())
        .map(|mount| json!({ "volume": mount.volume, "path": mount.path }))
        .collect();
    let containers: Vec<Value> =
        (machine.containers.iter()).map(|container| json!({ "name": container.name })).collect();
    json!({
        "id": machine.id,
        "name": machine.name,
        "state": machine.state,
        "region": machine.region,
        "private_ip": machine.private_ip,
        "created_at": machine.created_at,
        "config": {
            "env": { "FLY_PROCESS_GROUP": machine.process_group },
            "metadata": { "fly_process_group": machine.process_group },
            "mounts": mounts,
            "containers": containers,
        },
    })
}

pub fn change(path: &Path, world: &World, change: &MachineChange, state: &str) -> Result<()> {
    let (app, machines) = select::app(world, change.app.as_deref())?;
    for id in &change.ids {
        if !machines.iter().any(|machine| machine.id == *id) {
            bail!("could not get machine {id}: failed to get VM {id}: machine not found");
        }
        World::edit(path, |world| {
            let machines = world.apps.entry(app.clone()).or_default();
            for machine in machines.iter_mut().filter(|machine| machine.id == *id) {
                state.clone_into(&mut machine.state);
            }
        })?;
        println!("{id} has been {state}");
    }
    Ok(())
}
