//! The plan of a prune; changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Kind, Meta, Snapshot};

/// The snapshots to remove, and those kept only for their last copies.
pub struct PrunePlan<'a> {
    pub remove: Vec<&'a Snapshot>,
    /// Each with the databases that no other snapshot has.
    pub last_copies: Vec<(&'a Snapshot, Vec<&'a str>)>,
}

/// Keeps the newest `keep` of each kind: complete pulls of each source, pulls of some databases,
/// saves before a pull or restore; `expired` ones are neither kept nor counted. Always keeps manual, external and
/// defective snapshots, those with a label or a pin, those that `needed` names, and saves with the last copy of a database that
/// is not `replaceable`; with `before`, all that were made since then.
pub fn prune_plan<'a>(
    snapshots: &'a [Snapshot],
    keep: usize,
    expired: &BTreeSet<String>,
    needed: &[String],
    replaceable: &BTreeSet<String>,
    before: Option<Timestamp>,
) -> PrunePlan<'a> {
    let mut numbers = BTreeMap::new();
    let mut is_old = |snapshot: &'a Snapshot| {
        if snapshot.meta.as_ref().is_none_or(Meta::is_kept) {
            return false;
        }
        let class = match snapshot.meta.as_ref().map(|meta| meta.kind) {
            Some(Kind::Pull) if snapshot.only().is_none() => "pull",
            Some(Kind::Pull) => "pull of some",
            Some(Kind::BeforePull | Kind::BeforeRestore) => "save",
            Some(Kind::Manual) | None => return false,
        };
        let seen = numbers.entry((class, snapshot.source())).or_insert(0);
        let is_needed = needed.contains(&snapshot.name);
        if expired.contains(&snapshot.name) {
            return !is_needed;
        }
        *seen += 1;
        *seen > keep && !is_needed && before.is_none_or(|before| snapshot.time < before)
    };
    // Defective snapshots neither count as kept, nor as copies.
    let sound = snapshots.iter().filter(|snapshot| snapshot.defect.is_none());
    let (old, kept): (Vec<_>, Vec<_>) =
        sound.partition(|snapshot| snapshot.elsewhere.is_none() && is_old(snapshot));
    let names = |snapshot: &'a Snapshot| snapshot.files.iter().map(|(name, _)| name.as_str());
    let mut copied: BTreeSet<&str> = kept.into_iter().flat_map(names).collect();
    let mut plan = PrunePlan { remove: Vec::new(), last_copies: Vec::new() };
    for snapshot in old {
        let last = |name: &&str| !copied.contains(name) && !replaceable.contains(*name);
        let last: Vec<_> = names(snapshot).filter(last).collect();
        if snapshot.is_pull() || last.is_empty() {
            plan.remove.push(snapshot);
        } else {
            copied.extend(names(snapshot));
            plan.last_copies.push((snapshot, last));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::snapshot::name_of;
    use super::super::tests::meta;
    use super::*;

    const KINDS: [Option<Kind>; 5] = [
        None,
        Some(Kind::Pull),
        Some(Kind::BeforePull),
        Some(Kind::BeforeRestore),
        Some(Kind::Manual),
    ];

    /// Snapshots of these kinds, newest first; some are defective.
    fn snapshots(made: &[(usize, bool)]) -> Vec<Snapshot> {
        let of = |(i, &(kind, defective)): (usize, &(usize, bool))| {
            let time = Timestamp::from_second(1_000_000 - i as i64).unwrap();
            Snapshot {
                name: name_of(time),
                path: PathBuf::new(),
                order: time,
                time,
                elsewhere: None,
                meta: KINDS[kind].map(|kind| meta(kind, time, &[("a.db", 1)])),
                files: vec![("a.db".to_owned(), 1)],
                defect: defective.then(|| "a.db is missing".to_owned()),
            }
        };
        made.iter().enumerate().map(of).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_prune_keeps_the_newest_sound_ones_and_all_that_is_not_its_own(
            made in vec((0..KINDS.len(), proptest::bool::weighted(0.2)), 0..40),
            keep in 0_usize..6,
            needed in vec(0_usize..40, 0..3),
        ) {
            let snapshots = snapshots(&made);
            let needed: Vec<_> =
                needed.iter().filter_map(|&i| snapshots.get(i)).map(|s| s.name.clone()).collect();
            let none = BTreeSet::new();
            let plan = prune_plan(&snapshots, keep, &none, &needed, &["a.db".to_owned()].into(), None);
            prop_assert!(plan.last_copies.is_empty());
            let plan: HashSet<_> = plan.remove.into_iter().map(|s| s.name.clone()).collect();
            for group in [&KINDS[1..2], &KINDS[2..4]] {
                let sound = snapshots.iter().filter(|s| {
                    s.defect.is_none() && group.contains(&s.meta.as_ref().map(|meta| meta.kind))
                });
                for (i, snapshot) in sound.enumerate() {
                    let stays = i < keep || needed.contains(&snapshot.name);
                    prop_assert_eq!(!plan.contains(&snapshot.name), stays, "{}", snapshot.name);
                }
            }
            for snapshot in &snapshots {
                let own = snapshot.meta.as_ref().is_some_and(|meta| meta.kind != Kind::Manual);
                if !own || snapshot.defect.is_some() || needed.contains(&snapshot.name) {
                    prop_assert!(!plan.contains(&snapshot.name), "{}", snapshot.name);
                }
            }
        }
    }

    #[test]
    fn a_defective_snapshot_takes_no_place_of_a_sound_one() {
        let snapshots = snapshots(&[(1, true), (1, false), (1, false)]);
        let none = BTreeSet::new();
        let plan = prune_plan(&snapshots, 1, &none, &[], &none, None).remove;
        assert_eq!(plan.iter().map(|s| &s.name).collect::<Vec<_>>(), [&snapshots[2].name]);
    }

    #[test]
    fn a_label_or_a_pin_keeps_and_takes_no_place_and_what_is_young_stays() {
        let mut snapshots =
            snapshots(&[(1, false), (1, false), (1, false), (1, false), (2, false)]);
        let marked = |snapshot: &mut Snapshot| snapshot.meta.clone().unwrap();
        snapshots[0].meta = Some(Meta { pinned: true, ..marked(&mut snapshots[0]) });
        snapshots[3].meta =
            Some(Meta { label: Some("mine".to_owned()), ..marked(&mut snapshots[3]) });
        let none = BTreeSet::new();
        let planned = |before| {
            let plan = prune_plan(&snapshots, 1, &none, &[], &["a.db".to_owned()].into(), before);
            plan.remove.iter().map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(planned(None), [snapshots[2].name.clone()]);
        assert_eq!(planned(Some(snapshots[1].time)), [snapshots[2].name.clone()]);
        assert_eq!(planned(Some(snapshots[2].time)), [""; 0]);
    }

    #[test]
    fn an_expired_snapshot_goes_unless_somebody_needs_it() {
        // Pull, save, by hand, manual, damaged pull, pull, pull.
        let mut made = snapshots(&[
            (1, false),
            (2, false),
            (0, false),
            (4, false),
            (1, true),
            (1, false),
            (1, false),
        ]);
        let expired: BTreeSet<_> = made[..6].iter().map(|one| one.name.clone()).collect();
        let planned = |made: &[Snapshot], needed: &[String]| {
            let plan = prune_plan(made, 1, &expired, needed, &["a.db".to_owned()].into(), None);
            let index = |one: &Snapshot| made.iter().position(|it| it.name == one.name).unwrap();
            plan.remove.iter().map(|one| index(one)).collect::<Vec<_>>()
        };
        assert_eq!(planned(&made, &[]), [0, 1, 5], "the last pull is the newest that counts");
        assert_eq!(planned(&made, &[made[5].name.clone()]), [0, 1]);
        made[1].files.push(("mine.db".to_owned(), 1));
        assert_eq!(planned(&made, &[]), [0, 5], "it has the last copy of mine.db");
    }

    #[test]
    fn the_newest_save_of_what_is_nowhere_else_stays() {
        let mut made = snapshots(&[(2, false), (3, false), (2, false), (3, true), (1, false)]);
        for snapshot in &mut made[1..] {
            snapshot.files.push(("mine.db".to_owned(), 1));
        }
        let planned = |made: &[Snapshot], replaceable: &[&str]| {
            let replaceable = replaceable.iter().map(|name| (*name).to_owned()).collect();
            let plan = prune_plan(made, 1, &BTreeSet::new(), &[], &replaceable, None);
            let index = |one: &Snapshot| made.iter().position(|it| it.name == one.name).unwrap();
            let last = plan.last_copies.iter().map(|(one, names)| (index(one), names.join(" ")));
            (plan.remove.iter().map(|one| index(one)).collect::<Vec<_>>(), last.collect::<Vec<_>>())
        };
        assert_eq!(planned(&made[..4], &[]), (vec![2], vec![(1, "mine.db".to_owned())]));
        assert_eq!(planned(&made[..4], &["mine.db"]), (vec![1, 2], vec![]));
        assert_eq!(planned(&made, &[]), (vec![1, 2], vec![]), "the pull has it");
    }
}
