use anyhow::Result;

use crate::config::Settings;
use crate::context::Context;
use crate::doctor::report::{self, Report};
use crate::doctor::server::{self, Expected};
use crate::doctor::{Check, data, here, there};
use crate::interrupt;
use crate::server::args::ServerArgs;
use crate::server::transport::Transport;

/// Check what a pull needs, here and on the server
///
/// Print a line for each check, with the command or the change that fixes it.
/// Nothing is changed without --fix. Exit with 1 if a check failed.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Ask once, then fix what is safe: ignore files, the pre-commit hook, what
    /// killed commands left here and on the server
    #[arg(long)]
    fix: bool,
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if self.fix {
            cx.ui.require_answers()?;
        }
        let mut checks = Vec::new();
        let Some((settings, is_whole)) = self.settings(cx, &mut checks) else {
            return report::finish(&cx.ui, &checks);
        };
        let report = Report { cx, settings: &settings, fix: self.fix && is_whole };
        let needed = !self.server.is_share(&settings);
        let program = needed.then(|| here::program(&cx.sh, &self.server.via(&settings))).flatten();
        let can_connect = !program.as_ref().is_some_and(Check::is_error);
        checks.extend(program);
        checks.extend(here::repository(&cx.sh, &settings));
        checks.extend(data::checks(&settings, is_whole));
        if !can_connect {
            checks.push(Check::skipped("server", "the server was not checked").on_server());
            return report.finish(checks, None);
        }
        if self.server.is_share(&settings) {
            let message = "cargo xtask snapshots list --share shows what was published";
            checks.push(Check::skipped("server", message).on_server());
            return report.finish(checks, None);
        }
        match self.server.transport(cx, &settings, &[], true) {
            Ok(transport) if transport.replicas().is_some() => {
                let message = "cargo xtask pull-db --dry-run shows what the replicas have";
                checks.push(Check::skipped("server", message).on_server());
                report.finish(checks, None)
            }
            Ok(transport) => self.visit(&report, transport, checks),
            Err(error) => {
                checks.push(Check::failed("server", &error).on_server());
                report.finish(checks, None)
            }
        }
    }

    /// The settings, and whether all of them are known.
    fn settings(&self, cx: &Context, checks: &mut Vec<Check>) -> Option<(Settings, bool)> {
        match cx.settings().and_then(|settings| self.server.of_source(settings)) {
            Ok(settings) => {
                checks.push(here::settings(&settings));
                Some((settings, true))
            }
            Err(error) => {
                checks.push(Check::failed("settings", &error));
                let salvaged = cx.salvaged_settings();
                let salvaged = salvaged.and_then(|it| self.server.of_source(it).ok());
                if salvaged.is_none() {
                    checks.push(Check::skipped("server", "nothing else was checked"));
                }
                Some((salvaged?, false))
            }
        }
    }

    /// Checks the server too.
    fn visit(
        &self,
        report: &Report<'_>,
        mut transport: Transport<'_>,
        mut checks: Vec<Check>,
    ) -> Result<()> {
        let Report { cx, settings, .. } = *report;
        let (peer, via) = (transport.peer(), self.server.via(settings));
        let visited = there::visit(cx, settings, &mut transport, |server| {
            let expected = Expected { settings, via: &via, peer: &peer };
            let mut checks = std::mem::take(&mut checks);
            let set = server.facts.databases.map(|databases| databases.bytes);
            checks.extend(set.and_then(|set| here::disk(settings, set)));
            checks.extend(server::checks(&server.facts, &expected));
            let error = server.error.as_ref();
            checks.extend(error.map(|error| Check::failed("server", error).on_server()));
            report.finish(checks, Some(server))
        });
        interrupt::check()?;
        visited.unwrap_or_else(|error| {
            checks.push(Check::failed("server", &error).on_server());
            report.finish(checks, None)
        })
    }
}
