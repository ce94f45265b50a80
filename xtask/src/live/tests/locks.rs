//! Programs that have one database of the set locked and want another.

use super::open::program;
use super::*;

#[test]
fn a_program_that_has_one_and_wants_another_is_not_in_a_deadlock_with_us() {
    let mut env = Env::new();
    env.live.wait = Duration::from_secs(60);
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    let (a, b) = (program(&env, "a.db", "WAL"), program(&env, "b.db", "WAL"));
    b.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('first')").unwrap();
    let app = std::thread::spawn(move || {
        // Until the replacement has locked a.db and waits for b.db.
        a.busy_timeout(Duration::ZERO).unwrap();
        while a.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            std::thread::yield_now();
        }
        a.busy_timeout(Duration::from_secs(20)).unwrap();
        a.execute_batch("INSERT INTO t VALUES ('then')").unwrap();
        b.execute_batch("COMMIT").unwrap();
    });
    let replaced = env.replace(&snapshot);
    app.join().unwrap();
    let saved = env.path(&replaced.before.unwrap().name);
    assert_eq!(said(&saved.join("a.db")), "old a.db,app,then");
    assert_eq!(said(&saved.join("b.db")), "old b.db,app,first");
}

#[test]
fn a_program_that_has_one_and_waits_for_another_is_let_through() {
    for replaces in [true, false] {
        let mut env = Env::new();
        env.live.wait = Duration::from_secs(60);
        let snapshot = env.pulled(&["a.db", "b.db"], None);
        let (a, b) = (program(&env, "a.db", "DELETE"), program(&env, "b.db", "DELETE"));
        a.busy_timeout(Duration::ZERO).unwrap();
        b.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES ('both')").unwrap();
        let app = std::thread::spawn(move || {
            while a.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").is_ok() {
                std::thread::yield_now();
            }
            a.busy_timeout(Duration::from_secs(5)).unwrap();
            a.execute_batch("INSERT INTO t VALUES ('both')").unwrap();
            b.execute_batch("COMMIT").unwrap();
        });
        if replaces {
            env.replace(&snapshot);
        } else {
            env.live.save(Kind::Manual, true).unwrap();
        }
        app.join().unwrap();
    }
}
