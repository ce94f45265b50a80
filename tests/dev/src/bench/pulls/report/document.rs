//! The document that is committed.

use xtask_db::internals::ui::{bytes, count};

use super::{FLOOR, Measured, NOT_INSTALLED, Report, disk_sentence, seconds, tenant_cells};
use crate::bench::pulls::disk::Disk;
use crate::bench::pulls::flows::Flow;
use crate::bench::pulls::local;
use crate::bench::pulls::rules;
use crate::bench::pulls::source::Database;
use crate::bench::pulls::tenants::Tenants;

impl Report {
    /// Lies beside `plot`.
    pub fn document(&self, plot: &str) -> String {
        let databases = self.databases.iter().map(|Database { name, rows, bytes: size }| {
            format!("`{name}` ({rows} documents, {})", bytes(*size))
        });
        let stages = self.stages().map(|(name, stages)| vec![name.to_owned(), stages]);
        format!(
            include_str!("../document.md"),
            databases = databases.collect::<Vec<_>>().join(", "),
            rules = rules::SETTINGS.trim_end(),
            runs = count(self.runs as usize, "run"),
            machine = self.machine.describe(),
            flows = self.flow_table(),
            stages = table(&["", "stages"], stages),
            tenants = self.tenants.as_ref().map_or_else(left_out, tenant_table),
            disk = self.disk.as_ref().map_or_else(left_out, disk_line),
            targets = self.target_table(),
            plot = format_args!("![Seconds of each flow through each link]({plot})"),
        )
    }

    fn flow_table(&self) -> String {
        let links: Vec<_> = self.links.iter().map(|link| link.shape.to_string()).collect();
        let mut head = vec![""];
        head.extend(links.iter().map(String::as_str));
        head.extend(["up", "down", "CPU of the server"]);
        let first = self.links.first().into_iter().flat_map(|link| &link.flows);
        let mut rows: Vec<_> = first.map(|measured| self.flow_row(measured)).collect();
        let mut floor = vec![FLOOR.to_owned()];
        floor.extend(self.links.iter().map(|link| link.floor.map(tenths).unwrap_or_default()));
        rows.push(floor);
        if self.links.iter().all(|link| link.find(Flow::Sqlite3Rsync).is_none()) {
            rows.push([Flow::Sqlite3Rsync.name(), NOT_INSTALLED].map(str::to_owned).into());
        }
        for row in &mut rows {
            row.resize(head.len(), String::new());
        }
        table(&head, rows)
    }

    fn flow_row(&self, measured: &Measured) -> Vec<String> {
        let flow = measured.flow;
        let mut cells = vec![flow.name().to_owned()];
        cells.extend(self.links.iter().map(|link| {
            let seconds = link.seconds(flow).unwrap_or_default();
            format!("{} ({:.2})", tenths(seconds), link.ratio(flow).unwrap_or_default())
        }));
        let cpu = measured.cpu.map(seconds).unwrap_or_default();
        cells.extend([bytes(measured.up), bytes(measured.down), cpu]);
        cells
    }

    fn target_table(&self) -> String {
        let rows = self.targets().into_iter().map(|target| {
            let mut cells = target.cells().to_vec();
            cells.push(target.missed().map_or("", |_| "**missed**").to_owned());
            cells
        });
        table(&["", "target", "measured", ""], rows)
    }
}

fn tenths(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn left_out() -> String {
    format!("They were left out, or a pull took over {} s.", local::LIMIT)
}

fn tenant_table(tenants: &Tenants) -> String {
    let name = count(tenants.databases as usize, "tenant");
    let head = [&name, "seconds", "memory here", "processes that read databases at once"];
    table(&head, tenants.pulls.iter().map(|pull| tenant_cells(pull).to_vec()))
}

fn disk_line(disk: &Disk) -> String {
    format!("{}.", disk_sentence(disk))
}

/// A table of Markdown.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let cell = |cell: &String| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") };
    let line = |cells: &[String]| format!("|{}", cells.iter().map(cell).collect::<String>());
    let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut lines = vec![line(&head), format!("|{}", " --- |".repeat(head.len()))];
    lines.extend(rows.into_iter().map(|cells| line(&cells)));
    lines.join("\n")
}
