//! The plot: a group of bars for each link.

use std::fmt::{self, Write as _};

use super::flows::Flow;
use super::report::Link;

const WIDTH: f64 = 760.0;
/// The start of the bars, and the length of the longest.
const LEFT: f64 = 150.0;
const LONGEST: f64 = 500.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
/// The space above the bars of a link for its name, and below them for the axis.
const ABOVE: f64 = 34.0;
const BELOW: f64 = 44.0;

/// Colours that differ on white and on black, and for colour-blind readers.
const STYLE: &str = "
text { font: 13px sans-serif; fill: #24292f; }
.link { font-weight: bold; }
.tick, .axis { font-size: 11px; fill: #57606a; }
line { stroke: #8c959f; stroke-opacity: 0.5; }
.ours { fill: #2f81f7; }
.other { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .tick, .axis { fill: #9198a1; }
}
";

/// The SVG of all links.
pub fn svg(links: &[Link], runs: u32) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut out, links, runs);
    out
}

fn draw(out: &mut String, links: &[Link], runs: u32) -> fmt::Result {
    let height: f64 = links.iter().map(height_of).sum();
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
    )?;
    writeln!(out, "<title>Seconds that each way takes through each link</title>")?;
    writeln!(out, "<style>{STYLE}</style>")?;
    let mut top = 0.0;
    for link in links {
        draw_link(out, link, top, runs)?;
        top += height_of(link);
    }
    writeln!(out, "</svg>")
}

fn height_of(link: &Link) -> f64 {
    ABOVE + STEP * link.flows.len() as f64 + BELOW
}

fn draw_link(out: &mut String, link: &Link, top: f64, runs: u32) -> fmt::Result {
    let longest = link.flows.iter().map(|measured| measured.seconds.median).fold(0.1, f64::max);
    let step = nice(longest);
    let scale = LONGEST / longest;
    let (first, last) = (top + ABOVE, top + height_of(link) - BELOW);
    writeln!(out, r#"<text class="link" x="{LEFT}" y="{}">{}</text>"#, first - 12.0, link.shape)?;
    for tick in (0..).map(|i| f64::from(i) * step).take_while(|tick| *tick <= longest) {
        let x = LEFT + tick * scale;
        writeln!(out, r#"<line x1="{x:.1}" y1="{first}" x2="{x:.1}" y2="{last}"/>"#)?;
        writeln!(
            out,
            r#"<text class="tick" x="{x:.1}" y="{}" text-anchor="middle">{}</text>"#,
            last + 14.0,
            (tick * 100.0).round() / 100.0
        )?;
    }
    let label =
        if runs == 1 { "seconds".to_owned() } else { format!("seconds, median of {runs} runs") };
    writeln!(
        out,
        r#"<text class="axis" x="{:.1}" y="{}" text-anchor="middle">{label}</text>"#,
        LEFT + LONGEST / 2.0,
        last + 29.0
    )?;
    for (i, measured) in link.flows.iter().enumerate() {
        let (flow, seconds) = (measured.flow, measured.seconds.median);
        let y = first + STEP * i as f64 + (STEP - BAR) / 2.0;
        let (text, width) = (y + BAR - 4.0, seconds * scale);
        writeln!(
            out,
            r#"<text x="{}" y="{text}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            flow.name()
        )?;
        let class = if flow.is_ours() { "ours" } else { "other" };
        writeln!(
            out,
            r#"<rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="{BAR}"/>"#
        )?;
        let ratio = match (flow, link.ratio(flow)) {
            (Flow::Classic, _) | (_, None) => String::new(),
            (_, Some(ratio)) => format!(" ({ratio:.2})"),
        };
        writeln!(
            out,
            r#"<text x="{:.1}" y="{text}">{seconds:.1} s{ratio}</text>"#,
            LEFT + width + 6.0
        )?;
    }
    Ok(())
}

/// The step of the axis: 1, 2 or 5 times a power of ten, for four to ten ticks.
fn nice(longest: f64) -> f64 {
    let decade = 10f64.powf((longest / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    steps.into_iter().find(|step| longest / step <= 10.0).unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::pulls::flows::Run;
    use crate::bench::pulls::report::{LINKS, Measured};

    #[test]
    fn each_flow_has_a_bar_in_proportion_that_is_within_the_picture() {
        let flows = [(Flow::Classic, 20.0), (Flow::FirstZstd, 7.0), (Flow::Day, 0.5)];
        let measured = |(flow, seconds)| {
            Measured::of(flow, &[Run { time: Duration::from_secs_f64(seconds), ..Run::default() }])
        };
        let links = LINKS.map(|shape| Link::new(shape, flows.map(measured).into()));
        let svg = svg(&links, 3);
        assert_eq!(svg.matches("<rect ").count(), 9);
        assert_eq!(svg.matches(r#"width="500.0""#).count(), 3, "{svg}");
        assert_eq!(svg.matches(r#"width="175.0""#).count(), 3, "{svg}");
        assert_eq!(svg.matches(r#"class="ours""#).count(), 6);
        assert_eq!(svg.matches(">7.0 s (0.35)<").count(), 3, "{svg}");
        assert!(svg.contains(">20 ms, 1 Gbit/s<"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        for number in svg.split(['"', ' ']).filter_map(|word| word.parse::<f64>().ok()) {
            assert!((0.0..=WIDTH).contains(&number), "{number}");
        }
    }

    #[test]
    fn an_axis_has_some_round_ticks() {
        for (longest, step) in [(0.7, 0.1), (4.0, 0.5), (17.0, 2.0), (63.0, 10.0)] {
            assert!((nice(longest) - step).abs() < 1e-9, "{longest}: {}", nice(longest));
        }
    }
}
