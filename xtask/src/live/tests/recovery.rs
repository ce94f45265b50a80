//! The recovery from every state of the disk that a kill can leave.

use super::super::journal::JOURNAL;
use super::open::program;
use super::*;

/// A replacement of a.db and b.db by a new a.db and c.db, on disk after `steps` of its journal:
/// sidecars, b.db itself, the two renames, the state, the staged directory and the journal.
fn killed_after(steps: usize) -> Env {
    let env = Env::new();
    let before = env.save(Kind::BeforeRestore).map(|saved| saved.name);
    for name in ["a.db-wal", "b.db-journal", "c.db-wal"] {
        std::fs::write(env.path(name), "stale").unwrap();
    }
    let snapshot = env.pulled(&["a.db", "c.db"], None);
    let install = ["a.db", "c.db"].map(String::from).to_vec();
    stage(&snapshot, &install, &env.state(STAGED)).unwrap();
    let state = State { live: Some(snapshot.name), before, ..State::default() };
    let journal = Journal {
        install,
        remove: vec!["b.db".to_owned()],
        in_place: Vec::new(),
        save: true,
        state,
    };
    fs::write(&env.state(JOURNAL), &serde_json::to_vec(&journal).unwrap()).unwrap();
    let plan: [&dyn Fn(); STEPS] = [
        &|| std::fs::remove_file(env.path("a.db-wal")).unwrap(),
        &|| std::fs::remove_file(env.path("c.db-wal")).unwrap(),
        &|| std::fs::remove_file(env.path("b.db-journal")).unwrap(),
        &|| std::fs::remove_file(env.path("b.db")).unwrap(),
        &|| std::fs::rename(env.state(STAGED).join("a.db"), env.path("a.db")).unwrap(),
        &|| std::fs::rename(env.state(STAGED).join("c.db"), env.path("c.db")).unwrap(),
        &|| journal.state.write(&env.live.store).unwrap(),
        &|| std::fs::remove_dir(env.state(STAGED)).unwrap(),
        &|| std::fs::remove_file(env.state(JOURNAL)).unwrap(),
    ];
    for step in &plan[..steps] {
        step();
    }
    env
}

const STEPS: usize = 9;
/// After this number of steps, a.db is new and c.db is still staged.
const HALFWAY: usize = 5;

fn assert_new(env: &Env) {
    assert_eq!(names(&env.files()), ["a.db", "c.db", "x.db"]);
    assert_eq!((env.said("a.db"), env.said("c.db")), ("new a.db".into(), "new c.db".into()));
    assert_eq!(env.said("x.db"), "old x.db");
    let state = State::read(&env.live.store).unwrap();
    let snapshots: Vec<_> =
        env.live.store.list().unwrap().into_iter().map(|snapshot| Some(snapshot.name)).collect();
    assert_eq!([state.live, state.before], *snapshots, "nothing else was to be saved");
    assert!(env.is_clean());
}

#[test]
fn a_kill_after_any_step_of_the_journal_is_finished_once() {
    for steps in 0..=STEPS {
        let env = killed_after(steps);
        env.live.recover().unwrap();
        assert_new(&env);
        let (live, state) = (env.files(), files(&env.live.store.state_dir()));
        env.live.recover().unwrap();
        assert_eq!((env.files(), files(&env.live.store.state_dir())), (live, state), "{steps}");
    }
}

#[test]
fn a_kill_during_a_recovery_is_recovered_from() {
    for steps in 0..STEPS {
        let env = killed_after(steps);
        // A directory in place of one file stops the recovery at that file.
        for name in ["c.db", "b.db-wal", "c.db-shm"] {
            let in_the_way = env.path(name);
            let moved = in_the_way.exists().then(|| std::fs::read(&in_the_way).unwrap());
            if moved.is_some() {
                continue;
            }
            std::fs::create_dir_all(in_the_way.join("x")).unwrap();
            let _ = env.live.recover();
            std::fs::remove_dir_all(&in_the_way).unwrap();
        }
        env.live.recover().unwrap();
        assert_new(&env);
    }
}

#[test]
fn a_database_that_a_program_made_anew_is_not_removed() {
    let env = killed_after(HALFWAY);
    write(&env.path("b.db"), "since");
    env.live.recover().unwrap();
    assert_eq!((env.said("b.db"), env.said("c.db")), ("since".into(), "new c.db".into()));
}

#[test]
fn a_recovery_waits_for_a_program_that_has_an_old_database_open() {
    let env = killed_after(0);
    let app = open(&env.path("b.db"), "");
    let error = env.live.recover().unwrap_err();
    assert!(format!("{error:#}").contains("b.db is open in "), "{error:#}");
    assert!(env.state(JOURNAL).exists() && env.state(STAGED).join("a.db").exists());
    drop(app);
    env.live.recover().unwrap();
    assert_new(&env);
}

#[test]
fn what_a_program_wrote_beside_a_database_that_is_new_already_is_left_alone() {
    let env = killed_after(HALFWAY);
    let app = open(
        &env.path("a.db"),
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES ('since')",
    );
    let wal = || std::fs::read(env.path("a.db-wal")).unwrap();
    let before = wal();
    assert!(!before.is_empty());
    env.live.recover().unwrap();
    assert_eq!(wal(), before);
    drop(app);
    assert_eq!(env.said("a.db"), "new a.db,since");
    assert_eq!(env.said("c.db"), "new c.db");
}

#[test]
fn what_was_staged_without_a_journal_is_undone() {
    let env = killed_after(0);
    std::fs::remove_file(env.state(JOURNAL)).unwrap();
    let before = env.files();
    for _ in 0..2 {
        env.live.recover().unwrap();
        assert_eq!(env.files(), before);
        assert!(env.is_clean());
        assert!(State::read(&env.live.store).unwrap().live.is_none());
    }
}

#[test]
fn without_a_kill_there_is_nothing_to_recover() {
    let env = Env::new();
    let before = (env.files(), files(&env.live.store.state_dir()));
    env.live.recover().unwrap();
    assert_eq!((env.files(), files(&env.live.store.state_dir())), before);
}

#[test]
fn a_kill_while_staging_or_saving_leaves_the_old_set_and_a_restore_that_works() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "c.db"], None);
    fs::create_dir(&env.state(STAGED)).unwrap();
    std::fs::write(env.state(STAGED).join("a.db"), "half").unwrap();
    std::fs::write(env.state(STAGED).join("z.db"), "of another run").unwrap();
    env.replace(&snapshot);
    assert_eq!(names(&env.files()), ["a.db", "c.db", "x.db"]);
    assert_eq!(env.said("a.db"), "new a.db");
    assert!(env.is_clean());
}

#[test]
fn a_journal_that_cannot_be_read_stops_every_change_and_names_the_file() {
    let env = killed_after(0);
    std::fs::write(env.state(JOURNAL), "{").unwrap();
    let before = env.files();
    let error = env.live.recover().unwrap_err();
    assert!(format!("{error:#}").contains("journal.json is malformed"), "{error:#}");
    assert!(crate::error::hint(&error).unwrap().contains("journal.json"));
    assert_eq!(env.files(), before);
    assert!(env.state(STAGED).join("a.db").exists(), "it may still be wanted");
}

#[test]
fn a_change_by_another_tool_is_recorded_with_the_way_back() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db"], None);
    let saved = env.replace(&snapshot).before.unwrap();
    env.live.about_to_change(Some(&saved)).unwrap();
    let state = State::read(&env.live.store).unwrap();
    let name = Some(saved.name);
    assert_eq!((state.live, state.before), (name.clone(), name));
    env.live.about_to_change(None).unwrap();
    assert!(State::read(&env.live.store).unwrap().before.is_none());
}

#[test]
fn what_a_program_made_where_nothing_was_is_saved_before_it_is_replaced() {
    let env = Env::new();
    let snapshot = env.pulled(&["c.db"], None);
    let install = vec!["c.db".to_owned()];
    stage(&snapshot, &install, &env.state(STAGED)).unwrap();
    let state = State { live: Some(snapshot.name), ..State::default() };
    let journal = Journal { install, remove: Vec::new(), in_place: Vec::new(), save: true, state };
    journal.write(&env.live.store).unwrap();
    write(&env.path("c.db"), "since");
    env.live.recover().unwrap();
    assert_eq!(env.said("c.db"), "new c.db");
    let before = State::read(&env.live.store).unwrap().before.unwrap();
    assert_eq!(said(&env.path(&before).join("c.db")), "since");
}

#[test]
fn what_is_locked_is_not_taken_for_what_has_not_been_changed() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db"], Some("a.db"));
    let app = program(&env, "a.db", "DELETE");
    let install = vec!["a.db".to_owned()];
    stage(&snapshot, &install, &env.state(STAGED)).unwrap();
    let mut locked = env.live.open_and_lock(&[], &install).unwrap();
    locked_db::lock(&mut locked, env.live.ui, Duration::ZERO).unwrap();
    let in_place = save::write(&mut locked, None).unwrap();
    let state = State { live: Some(snapshot.name), ..State::default() };
    let journal = Journal { install, remove: Vec::new(), in_place, save: true, state };
    journal.write(&env.live.store).unwrap();
    let kept = std::fs::read(env.state(STAGED).join("a.db")).unwrap();
    locked_db::install(env.live.sh, locked).unwrap();
    std::fs::write(env.state(STAGED).join("a.db"), kept).unwrap();

    app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES ('since')").unwrap();
    let (path, staged) = (env.path("a.db"), env.state(STAGED).join("a.db"));
    assert!(shared_db::is_done(&path, &staged, Duration::ZERO).is_err());
    env.live.recover().unwrap_err();
    app.execute_batch("COMMIT").unwrap();
    env.live.recover().unwrap();
    assert_eq!(env.said("a.db"), "new a.db,since");
    assert!(env.is_clean());
}
