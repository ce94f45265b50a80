//! Frames as an SVG, which is animated by its style sheet.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Frame, Recording};
use crate::pty::{Line, Run};

/// The size of the terminal, without the command line. The picture is as high as what is shown.
pub const ROWS: u16 = 23;
pub const COLUMNS: u16 = 100;

/// Of a character, in the units of the picture.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 19.0;
const MARGIN: f64 = 18.0;
const BAR: f64 = 34.0;

const TITLE: &str = "cargo xtask pull-db, restore-db and restore-db --undo in a terminal";

const STYLE: &str = "
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:var(--fg);white-space:pre}
svg{--bg:#fff;--bar:#eaeef2;--fg:#1f2328;--1:#cf222e;--2:#116329;--3:#7d4e00;--4:#0550ae;--5:#6639ba;--6:#1b6f76;--8:#6e7781;--edge:#d0d7de}
@media(prefers-color-scheme:dark){svg{--bg:#0d1117;--bar:#161b22;--fg:#e6edf3;--1:#ff7b72;--2:#56d364;--3:#e3b341;--4:#79c0ff;--5:#d2a8ff;--6:#56d4dd;--8:#8b949e;--edge:#30363d}}
.b{font-weight:700}.c1{fill:var(--1)}.c2{fill:var(--2)}.c3{fill:var(--3)}.c4{fill:var(--4)}.c5{fill:var(--5)}.c6{fill:var(--6)}.c8{fill:var(--8)}
.f{visibility:hidden}
";

/// The recording as a file.
pub fn render(recording: &Recording) -> String {
    let frames = merged(&recording.frames);
    let rows = frames.iter().map(|frame| frame.lines.len()).max().unwrap_or_default();
    let width = f64::from(COLUMNS) * WIDTH + 2.0 * MARGIN;
    let height = rows as f64 * HEIGHT + 2.0 * MARGIN + BAR;
    let mut ids = BTreeMap::new();
    let mut groups = String::new();
    for (i, frame) in frames.iter().enumerate() {
        let last = if i + 1 == frames.len() { " last" } else { "" };
        write!(groups, "<g class=\"f f{i}{last}\">").unwrap();
        for (row, line) in frame.lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            let next = ids.len();
            let id = *ids.entry(line_of(line)).or_insert(next);
            write!(groups, "<use href=\"#l{id}\" y=\"{}\"/>", HEIGHT * row as f64).unwrap();
        }
        groups += "</g>\n";
    }
    let mut lines: Vec<_> = ids.into_iter().map(|(line, id)| (id, line)).collect();
    lines.sort_unstable();
    let lines = lines.iter().map(|(id, line)| format!("<g id=\"l{id}\">{line}</g>\n"));
    let lines: String = lines.collect();
    let (inner, top) = (height - BAR, BAR + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{TITLE}\">
<title>{TITLE}</title>
<style>{STYLE}{}</style>
<rect x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"9\" fill=\"var(--bg)\" stroke=\"var(--edge)\"/>
<path d=\"M.5 {BAR}V9.5a9 9 0 0 1 9-9H{}a9 9 0 0 1 9 9V{BAR}z\" fill=\"var(--bar)\" stroke=\"var(--edge)\"/>
<g fill=\"var(--8)\"><circle cx=\"20\" cy=\"17\" r=\"5\"/><circle cx=\"38\" cy=\"17\" r=\"5\"/><circle cx=\"56\" cy=\"17\" r=\"5\"/></g>
<defs>
{lines}</defs>
<svg y=\"{top}\" x=\"{MARGIN}\" width=\"{width}\" height=\"{inner}\" overflow=\"visible\">
{groups}</svg>
</svg>
",
        animation(&frames),
        width - 1.0,
        height - 1.0,
        width - 9.5,
    )
}

/// Without frames that are like the one before.
fn merged(frames: &[Frame]) -> Vec<Frame> {
    let mut merged: Vec<Frame> = Vec::new();
    for Frame { lines, time } in frames {
        match merged.last_mut().filter(|last| last.lines == *lines) {
            Some(last) => last.time += *time,
            None => merged.push(Frame { lines: lines.clone(), time: *time }),
        }
    }
    merged
}

/// Each frame is visible in its part of the time, again and again; the last one alone for those
/// who want nothing to move.
fn animation(frames: &[Frame]) -> String {
    let total: f64 = frames.iter().map(|frame| frame.time.as_secs_f64()).sum();
    let (mut style, mut at) = (String::new(), 0.0);
    for (i, frame) in frames.iter().enumerate() {
        let (begin, end) = (at / total * 100.0, (at + frame.time.as_secs_f64()) / total * 100.0);
        let after = if i + 1 == frames.len() { "" } else { "to{visibility:hidden}" };
        writeln!(style, "@keyframes k{i}{{0%{{visibility:hidden}}{begin:.3}%{{visibility:visible}}{end:.3}%{{visibility:hidden}}{after}}}.f{i}{{animation:k{i} {total:.2}s step-end infinite}}").unwrap();
        at += frame.time.as_secs_f64();
    }
    style + "@media(prefers-reduced-motion:reduce){.f{animation:none}.last{visibility:visible}}\n"
}

fn line_of(line: &Line) -> String {
    let runs = line.iter().map(|run| {
        let Run { column, text, color, bold } = run;
        let color = color.map(|color| format!("c{}", color % 8 + if color == 8 { 8 } else { 0 }));
        let bold = bold.then(|| "b".to_owned());
        let class: Vec<_> = color.into_iter().chain(bold).collect();
        let class = match &class[..] {
            [] => String::new(),
            class => format!(" class=\"{}\"", class.join(" ")),
        };
        let (x, count) = (f64::from(*column) * WIDTH, text.chars().count());
        let width = count as f64 * WIDTH;
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<text x=\"{x:.1}\" y=\"0\" textLength=\"{width:.1}\"{class}>{text}</text>")
    });
    runs.collect()
}

/// The words of a file, in the order of its lines, with one zero for each number: what a run today
/// must have too.
pub fn words(svg: &str) -> Vec<String> {
    let lines = svg.lines().filter(|line| line.starts_with("<g id=\"l"));
    let text = |line: &str| {
        let parts = line.split("</text>").filter_map(|part| part.rsplit_once('>'));
        let joined = parts.map(|(_, text)| text).collect::<Vec<_>>().join(" ");
        without_numbers(&joined)
    };
    // A step is shown if it takes some time.
    let lines = lines.map(text).filter(|line| !line.is_empty() && !line.starts_with('✓'));
    lines.collect()
}

fn without_numbers(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars() {
        let is_number = c.is_ascii_digit() || (c == '.' && short.ends_with('0'));
        match is_number {
            true if short.ends_with('0') => {}
            true => short.push('0'),
            false => short.push(c),
        }
    }
    short.split_whitespace().collect::<Vec<_>>().join(" ")
}
