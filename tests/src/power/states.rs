//! What a file system may have after a power cut.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::disk::{Disk, Op};
use super::recording::{Event, Recording};

/// Of a sector, all or nothing is written.
const SECTOR: usize = 512;

/// Which of the operations that were not synced are there.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    None,
    All,
    /// Only the first so many.
    First(usize),
    /// Only this one.
    Only(usize),
    /// All but this one.
    Without(usize),
    /// All, but the last write ends after so many bytes.
    Torn(usize),
}

/// A state: the number of events before the power cut, and what is there of those that were not
/// synced.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub after: usize,
    pub part: Part,
}

/// The durable operations, and the others, each with its number.
struct Moment<'a> {
    durable: Disk,
    pending: Vec<(usize, &'a Op)>,
}

impl Recording {
    /// All states that were not seen before.
    pub fn unseen(&self, seen: &mut HashSet<u64>) -> Vec<State> {
        self.unseen_without(seen, None)
    }

    /// The states that would be there too without one of the syncs.
    pub fn states_without(&self, sync: usize) -> Vec<State> {
        let mut seen = HashSet::new();
        self.unseen_without(&mut seen, None);
        self.unseen_without(&mut seen, Some(sync))
    }

    /// Whether the command had ended, and had said what it has done.
    pub fn is_finished(&self, state: State) -> bool {
        state.after == self.events.len()
    }

    fn unseen_without(&self, seen: &mut HashSet<u64>, without: Option<usize>) -> Vec<State> {
        let mut states = Vec::new();
        self.each_moment(without, |after, moment| {
            for part in parts(&moment.pending) {
                let state = State { after, part };
                // More is expected of a command that has ended.
                let mut hasher = DefaultHasher::new();
                (moment.with(part).hash(), self.is_finished(state)).hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    states.push(state);
                }
            }
        });
        states
    }

    /// A state, for messages.
    pub fn describe(&self, state: State) -> String {
        let last = state.after.checked_sub(1).map(|i| format!("{:.200?}", self.events[i]));
        format!("{:?} of what is not synced after event {} {last:?}", state.part, state.after)
    }

    /// The directory in a state.
    pub fn disk(&self, without: Option<usize>, state: State) -> Disk {
        let mut found = None;
        self.each_moment(without, |after, moment| {
            if after == state.after {
                found = Some(moment.with(state.part));
            }
        });
        found.expect("the state is of this recording")
    }

    /// The numbers of the syncs, each with the path of what is synced, in which `*` is what differs
    /// from run to run.
    pub fn syncs(&self) -> Vec<(usize, String)> {
        let numbered = self.events.iter().enumerate();
        let syncs = numbered.filter_map(|(i, event)| match event {
            Event::Sync(_, path) => Some((i, without_random(path))),
            Event::Op(_) => None,
        });
        syncs.collect()
    }

    fn each_moment(&self, without: Option<usize>, mut visit: impl FnMut(usize, &Moment<'_>)) {
        let mut moment = Moment { durable: self.known(), pending: Vec::new() };
        visit(0, &moment);
        for (i, event) in self.events.iter().enumerate() {
            match event {
                Event::Op(op) => moment.pending.push((i + 1, op)),
                Event::Sync(..) if without == Some(i) => {}
                Event::Sync(id, _) => {
                    let (synced, pending): (Vec<_>, Vec<_>) =
                        moment.pending.drain(..).partition(|(_, op)| op.is_of(*id));
                    moment.pending = pending;
                    for (number, op) in synced {
                        moment.durable.apply(number, op);
                    }
                }
            }
            visit(i + 1, &moment);
        }
    }
}

impl Moment<'_> {
    fn with(&self, part: Part) -> Disk {
        let mut disk = self.durable.clone();
        let last = self.pending.len().wrapping_sub(1);
        for (i, (number, op)) in self.pending.iter().enumerate() {
            let is_there = match part {
                Part::None => false,
                Part::All | Part::Torn(_) => true,
                Part::First(n) => i < n,
                Part::Only(n) => i == n,
                Part::Without(n) => i != n,
            };
            match (part, op) {
                (Part::Torn(size), Op::Write { file, at, data }) if i == last => {
                    let (file, at) = (*file, *at);
                    disk.apply(*number, &Op::Write { file, at, data: data[..size].into() });
                }
                _ if is_there => disk.apply(*number, op),
                _ => {}
            }
        }
        disk
    }
}

fn parts(pending: &[(usize, &Op)]) -> Vec<Part> {
    let n = pending.len();
    let mut parts = vec![Part::None, Part::All];
    parts.extend((1..n).map(Part::First));
    parts.extend((0..n).map(Part::Only));
    parts.extend((0..n).map(Part::Without));
    if let Some((_, Op::Write { data, .. })) = pending.last()
        && data.len() > 1
    {
        let half = data.len() / 2 / SECTOR * SECTOR;
        let last = (data.len() - 1) / SECTOR * SECTOR;
        parts.extend(
            [SECTOR, half, last]
                .into_iter()
                .filter(|it| (1..data.len()).contains(it))
                .map(Part::Torn),
        );
    }
    parts
}

fn without_random(path: &str) -> String {
    let name = |name: &str| match name.rsplit_once('-') {
        Some((begin @ ("incoming" | "xtask-unfinished"), end)) if end != "pull" => {
            format!("{begin}-*")
        }
        _ => name.to_owned(),
    };
    path.split('/').map(name).collect::<Vec<_>>().join("/")
}
