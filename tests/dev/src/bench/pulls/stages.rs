//! The stages of a pull, of which `pull-db --verbose` prints the times.

use serde::Serialize;

/// How lines with stages begin, and what a report calls the machine they are of.
const PLACES: [(&str, &str); 2] = [("on the server: ", "server"), ("here: ", "here")];

/// A stage and its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    pub place: &'static str,
    pub name: String,
    pub ms: u64,
}

/// Reads all `NAME N ms` of such lines. A name that is new is one more stage, so that the
/// benchmark needs no change when `pull-db` prints more.
pub fn parse(said: &str) -> Vec<Stage> {
    let lines = said.lines().filter_map(|line| {
        PLACES.iter().find_map(|(start, place)| Some((*place, line.trim().strip_prefix(start)?)))
    });
    lines
        .flat_map(|(place, pairs)| {
            pairs.split(", ").filter_map(move |pair| {
                let (name, ms) = pair.trim().strip_suffix(" ms")?.rsplit_once(' ')?;
                Some(Stage { place, name: name.to_owned(), ms: ms.parse().ok()? })
            })
        })
        .collect()
}

/// The median of each stage over some runs, in the order of the first.
pub fn medians(runs: &[&[Stage]]) -> Vec<Stage> {
    let mut all: Vec<(Stage, Vec<u64>)> = Vec::new();
    for stage in runs.iter().copied().flatten() {
        let same =
            |(other, _): &&mut (Stage, _)| (other.place, &other.name) == (stage.place, &stage.name);
        match all.iter_mut().find(same) {
            Some((_, times)) => times.push(stage.ms),
            None => all.push((stage.clone(), vec![stage.ms])),
        }
    }
    let median = |(stage, mut times): (Stage, Vec<u64>)| {
        times.sort_unstable();
        Stage { ms: times[times.len() / 2], ..stage }
    };
    all.into_iter().map(median).collect()
}

/// Reads as `server: copy 12 ms, hash 0 ms; here: verify 5 ms`.
pub fn describe(stages: &[Stage]) -> String {
    let of = |place| {
        let pairs = stages.iter().filter(|stage| stage.place == place);
        let pairs: Vec<_> = pairs.map(|stage| format!("{} {} ms", stage.name, stage.ms)).collect();
        (!pairs.is_empty()).then(|| format!("{place}: {}", pairs.join(", ")))
    };
    PLACES.iter().filter_map(|(_, place)| of(*place)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_both_places_are_read_and_other_lines_are_not() {
        let said = "  Connecting on the server: no 3 ms\n\
                    \x20on the server: copy 12 ms, compare and pack 900 ms, later\n\
                    here: verify 5 ms\nthere: x 1 ms\n";
        let stages = parse(said);
        assert_eq!(
            describe(&stages),
            "server: copy 12 ms, compare and pack 900 ms; here: verify 5 ms"
        );
        assert_eq!(parse("took 3 ms"), []);
        assert_eq!(describe(&[]), "");
    }

    #[test]
    fn each_stage_has_a_median_of_its_own() {
        let runs = ["a 1 ms, b 9 ms", "a 7 ms", "a 3 ms, b 8 ms, c 2 ms"]
            .map(|pairs| parse(&format!("here: {pairs}")));
        let runs = runs.each_ref().map(Vec::as_slice);
        assert_eq!(describe(&medians(&runs)), "here: a 3 ms, b 9 ms, c 2 ms");
    }
}
