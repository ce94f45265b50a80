//! Streams of a page delta that no server of ours would send: whatever they do to the
//! copy of a base, nothing here changes.

use std::fs;

use tests::databases;
use tests::forge::{
    CODECS, archives, bomb, chunks, compress, end, end_of_delta, file, header, index,
    index_of_delta, index_with, member, members, stream,
};
use tests::impostor::{Impostor, assert_harmless};

const NAME: &str = "data.db";

/// A developer with a base, and the database that the server has.
struct Scene {
    impostor: Impostor,
    base: Vec<u8>,
    new: Vec<u8>,
}

impl Scene {
    fn new() -> Scene {
        let impostor = Impostor::with_base();
        let path = impostor.env.production().join(NAME);
        databases::execute(&path, "UPDATE items SET value = -1 WHERE id = 7");
        let (base, new) = (fs::read(impostor.base()), fs::read(path));
        let (base, new) = (base.expect("read"), new.expect("read"));
        assert!(base != new && base.len() == new.len());
        Scene { impostor, base, new }
    }

    fn index(&self) -> String {
        index_of_delta(NAME, &self.new.len().to_string())
    }

    fn end(&self, changed: &str) -> Vec<u8> {
        file("end.json", end_of_delta(&self.index(), &[&self.new], changed))
    }

    /// With these between the index and the end record.
    fn archives(&self, between: &[Vec<u8>]) -> Vec<u8> {
        let between = between.concat();
        archives(&[file("index.json", self.index()), between, self.end("[[1,1]]")])
    }

    fn honest(&self) -> Vec<u8> {
        self.archives(&chunks(0, &self.base, &self.new))
    }

    /// Well-formed, and not what the sha256 is of.
    fn wrong(&self) -> Vec<u8> {
        stream(CODECS[0], &[file("index.json", self.index()), Vec::new(), self.end("[[0,0]]")])
    }

    fn is_live(&self) {
        let live = self.impostor.env.data().join(NAME);
        databases::assert_same(&live, &self.impostor.env.production().join(NAME));
    }
}

#[test]
fn parts_that_are_right_are_taken() {
    let scene = Scene::new();
    for codec in CODECS {
        scene.impostor.sends(&compress(codec, &scene.honest()[..]));
        let output = scene.impostor.pull(&[]).ok();
        assert!(!output.stderr.contains("warning"), "{output}");
        scene.is_live();
    }
}

#[test]
fn parts_that_are_not_ours_change_nothing() {
    let scene = Scene::new();
    let bytes = scene.new.len();
    let honest = chunks(0, &scene.base, &scene.new);
    let map = vec![b'1'; bytes.div_ceil(1024)];
    let whole = [&map[..], &scene.new].concat();
    let chunk = |name: &str| file(name, &whole);
    let other = |index: &str, changed: &str| {
        let end = end_of_delta(index, &[&scene.new], changed);
        archives(&[file("index.json", index), honest.concat(), file("end.json", end)])
    };
    let sized = |bytes: &str| other(&index_of_delta(NAME, bytes), "[[1,1]]");
    let ended = |changed: &str| other(&scene.index(), changed);
    let claim = |size| [&header(b"0.0", b'0', size)[..], &whole].concat();
    let more = "bytes\":1,\"name";
    let no_base = scene
        .index()
        .replace("[{", &format!("[{{\"{more}\":\"746573742e6462\",\"delta\":true}},{{"));
    let misplaced = "came where";
    let same = |number: &str| {
        let index = scene.index().replacen("}]}", &format!("}}],\"same\":[{number}]}}"), 1);
        other(&index, "[[1,1]]")
    };
    for (i, (name, archives, why)) in [
        ("unchanged, though it comes", same("0"), "was not offered"),
        ("unchanged, and never here", same("7"), "was not offered"),
        ("a chunk twice", scene.archives(&[chunk("0.0"), chunk("0.0")]), misplaced),
        ("a chunk beyond the end", scene.archives(&[chunk("0.1")]), misplaced),
        ("a chunk at 2^64", scene.archives(&[chunk("0.18446744073709551616")]), misplaced),
        ("a chunk below nothing", scene.archives(&[chunk("0.-1")]), misplaced),
        ("a chunk of another", scene.archives(&[chunk("1.0")]), misplaced),
        ("zeros before a number", scene.archives(&[chunk("0.00")]), misplaced),
        ("zeros before another", scene.archives(&[chunk("00.0")]), misplaced),
        ("a path", scene.archives(&[chunk("../0.0")]), misplaced),
        ("a whole one", scene.archives(&[file("0.db", &scene.new)]), misplaced),
        ("a link", scene.archives(&[member(b"0.0", b'2', 0, b"")]), misplaced),
        ("a short map", scene.archives(&[file("0.0", &whole[1..])]), "is malformed"),
        ("a long map", scene.archives(&[file("0.0", [b"1", &whole[..]].concat())]), "is malformed"),
        ("a map alone", scene.archives(&[file("0.0", &map)]), "is malformed"),
        ("no map", scene.archives(&[file("0.0", &scene.new)]), "is malformed"),
        ("half a map", scene.archives(&[file("0.0", "01")]), "is malformed"),
        ("a size of all", scene.archives(&[claim(u64::MAX)]), "refused"),
        ("a size of 2^63", scene.archives(&[claim(1 << 63)]), "refused"),
        ("a size of gigabytes", scene.archives(&[claim(10 << 30)]), "refused"),
        ("a database of 2^63 bytes", sized("9223372036854775808"), " free, but the pull needs "),
        ("a database of 2^64 bytes", sized("18446744073709551616"), "the index is malformed"),
        ("a database of nothing", sized("0"), misplaced),
        ("no base of it", other(&no_base, "[[1,1],[1,1]]"), "\"test.db\" was not requested"),
        ("nothing changed", ended("[null]"), "does not fit"),
        ("no word of a change", ended("[]"), "does not fit"),
        ("a change too many", ended("[[1,1],null]"), "does not fit"),
        ("a change of three", ended("[[1,1,1]]"), "is malformed"),
        ("a change below nothing", ended("[[-1,1]]"), "is malformed"),
    ]
    .into_iter()
    .enumerate()
    {
        let scene = &scene.impostor;
        scene.sends(&compress(CODECS[i % 2], &archives[..]));
        scene.is_refused(name, &[]).stderr_has(why).stderr_has("nothing was changed");
    }
    scene.impostor.sends(&compress(CODECS[0], &scene.honest()[..]));
    let output = scene.impostor.is_refused("parts that were not asked for", &["--full"]);
    output.stderr_has("was not requested");
}

#[test]
fn a_bomb_of_parts_does_not_go_off() {
    let scene = Scene::new();
    let index = file("index.json", scene.index());
    let claim = [&index[..], &header(b"0.0", b'0', 10 << 30)].concat();
    for codec in CODECS {
        for (name, begin) in [("zeros instead of chunks", &index), ("zeros in a chunk", &claim)] {
            scene.impostor.sends(&bomb(codec, begin, 10));
            scene.impostor.is_refused(name, &[]);
        }
    }
}

#[test]
fn what_comes_a_second_time_is_what_was_asked_for() {
    let scene = Scene::new();
    let wrong = scene.wrong();
    let good = members(&[(NAME, scene.new.clone())]);
    let named = |names: &[&str]| {
        let databases: Vec<_> = names.iter().map(|name| (*name, scene.new.clone())).collect();
        stream(CODECS[1], &members(&databases))
    };
    let parts = compress(CODECS[1], &scene.honest()[..]);
    let (index, data) = (index(&[(NAME.as_bytes(), "7".to_owned())]), b"another");
    let noise =
        [file("index.json", &index), file("0.db", data), file("end.json", end(&index, &[data]))];
    let whole = stream(CODECS[0], &good);
    for (name, second, why) in [
        ("another", named(&["other.db"]), "was not requested"),
        ("one more", named(&[NAME, "other.db"]), "was not requested"),
        ("none", stream(CODECS[0], &members(&[])), "it announces no database"),
        ("parts again", parts, "was not requested"),
        ("the wrong parts again", wrong.clone(), "was not requested"),
        ("nothing", Vec::new(), "cut"),
        ("half of it", whole[..whole.len() / 2].to_vec(), "the connection was cut"),
        (
            "another sum",
            {
                let mut members = good.clone();
                members[2] = file("end.json", end(&index, &[b"x"]));
                stream(CODECS[1], &members)
            },
            "is not what the server sent",
        ),
        ("what is no database", stream(CODECS[1], &noise), "damaged"),
    ] {
        scene.impostor.sends_in_turn(&wrong, &second);
        let output = scene.impostor.is_refused(name, &[]);
        output.stderr_has(why).stderr_has("the database is fetched whole");
        assert_eq!(fs::read_to_string(scene.impostor.env.path("word")).expect("asked"), "0");
    }
    scene.impostor.sends_in_turn(&wrong, &whole);
    let output = scene.impostor.pull(&[]).ok();
    assert_harmless("the second time", &output);
    scene.is_live();
}

/// Two are asked for again.
#[test]
fn each_that_was_asked_for_comes_a_second_time() {
    let scene = Scene::new();
    let env = &scene.impostor.env;
    // The second has no base that could be right: the first one's, under its name.
    let snapshot = scene.impostor.base().with_file_name("snapshot.json");
    let text = fs::read_to_string(&snapshot).expect("read");
    let mut meta: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut second = meta["databases"][0].clone();
    second["name"] = "e.db".into();
    meta["databases"].as_array_mut().expect("a list").push(second);
    fs::write(&snapshot, meta.to_string()).expect("write");
    fs::copy(scene.impostor.base(), snapshot.with_file_name("e.db")).expect("copy");
    let bytes = scene.new.len();
    let list = [NAME, "e.db"].map(|name| {
        format!(r#"{{"name":"{}","bytes":{bytes},"delta":true}}"#, tests::forge::hex(name))
    });
    let index = index_with(&format!("[{}]", list.join(",")));
    let sums = [&scene.new, &scene.new];
    let end = file("end.json", end_of_delta(&index, &sums, "[[0,0],[0,0]]"));
    let wrong = stream(CODECS[0], &[file("index.json", &index), Vec::new(), end]);
    let whole = |names: &[&str]| {
        let databases: Vec<_> = names.iter().map(|name| (*name, scene.new.clone())).collect();
        stream(CODECS[0], &members(&databases))
    };
    let one = |second: &[u8]| {
        // The hashes of two.
        scene.impostor.sends_in_turn(&wrong, second);
        let answer = fs::read_to_string(env.path("answer")).expect("read");
        let hashes = bytes.div_ceil(16384) * 64;
        env.write(
            "answer",
            &answer
                .replace("sha3 0\\n", "sha3 0 1\\n")
                .replace(&format!("-c {hashes} "), &format!("-c {} ", 2 * hashes)),
        );
    };
    for (name, second) in [("one of two", whole(&[NAME])), ("the other", whole(&["e.db"]))] {
        one(&second);
        scene.impostor.is_refused(name, &[]).stderr_has("nothing was changed");
        assert_eq!(fs::read_to_string(env.path("word")).expect("asked"), "0 1");
    }
    one(&whole(&["e.db", NAME]));
    scene.impostor.pull(&[]).ok();
    scene.is_live();
}

#[test]
fn a_plan_changes_nothing_whatever_it_says() {
    let scene = Scene::new();
    let good = [file("index.json", scene.index()), scene.end("[[1,1]]")];
    let plan = stream(CODECS[0], &good);
    let sent = compress(CODECS[0], &scene.honest()[..]);
    let says = |said: &str, stream: &[u8]| {
        let behind = [said.as_bytes(), b"\n", stream].concat();
        scene.impostor.says(b"\nXTASK-DB-PLAN 1 ", 1000, &behind);
    };
    let dry: &[&str] = &["--dry-run"];
    for (name, said, stream, args) in [
        ("no number", "", &plan, dry),
        ("nonsense", " \x1b[2J", &plan, dry),
        ("2^64", " 18446744073709551616", &plan, dry),
        ("the databases too", " 1", &sent, dry),
        ("only its index", " 1", &stream(CODECS[1], &good[..1]), dry),
        ("a plan for a pull", " 1", &plan, &[]),
        ("a plan and the databases for a pull", " 1", &sent, &[]),
    ] {
        says(said, stream);
        scene.impostor.is_refused(name, args);
    }
    scene.impostor.sends(&sent);
    scene.impostor.is_refused("a pull for a plan", dry);
    says(" 1", &[&plan[..], &plan].concat());
    let output = scene.impostor.pull(dry).ok();
    assert_harmless("a plan twice", &output);
}

/// The hashes of a base of half a gigabyte are more than fits into any pipe.
#[test]
fn a_server_that_does_not_take_the_hashes_is_not_waited_for() {
    let scene = Scene::new();
    scene.impostor.has_base_of(512 << 20);
    let failed = "printf '\\nXTASK-DB-FAILED 1 %s no-space full\\n' \"$nonce\"";
    let refused = "printf '\\nXTASK-DB 1 %s\\nnothing' \"$nonce\"";
    for says in [failed, refused] {
        for then in [
            "exec sleep 1000",
            "while [ -n \"$(dd bs=64 count=1 2>/dev/null | tr '\\0' x)\" ]; do sleep 0.01; done",
            "exec cat >/dev/null",
            "exit 1",
        ] {
            scene.impostor.runs(&format!("{says}; {then}"));
            scene.impostor.is_refused(then, &[]);
        }
    }
}

/// A server that says that it applied no rules where there are some, the first time or the second.
#[test]
fn what_no_rule_was_applied_to_is_refused_each_time() {
    let scene = Scene::new();
    let env = &scene.impostor.env;
    env.db_toml("[[sanitize]]\ntable = 'items'\ndelete = true\nwhere = '0'\n");
    let whole = stream(CODECS[0], &members(&[(NAME, scene.new.clone())]));
    scene.impostor.sends(&whole);
    let refused = |name: &str| {
        let output = scene.impostor.is_refused(name, &[]);
        output.stderr_has("error: the server did not apply the rules; nothing was changed\n");
    };
    refused("the first time");
    // The base as if these rules had been applied to it.
    let other = env.path("other").display().to_string();
    let pulled = env.local_pull(&["--local-dir", &other]).ok();
    let of_snapshot = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
    };
    let made = tests::store::snapshots(&env.path("other")).remove(0).path.join("snapshot.json");
    let rules = of_snapshot(&made)["origin"]["sanitize_rules"].clone();
    assert!(rules.is_string(), "{pulled}");
    fs::remove_dir_all(env.path("other")).expect("remove");
    let base = scene.impostor.base().with_file_name("snapshot.json");
    let mut meta = of_snapshot(&base);
    meta["origin"]["sanitize_rules"] = rules;
    fs::write(&base, meta.to_string()).expect("write");
    let applied = |end: Vec<u8>| {
        let text = String::from_utf8(end).expect("tar of text");
        file("end.json", text[512..].trim_end_matches('\0').replace(":null", ":[0]"))
    };
    let wrong = [file("index.json", scene.index()), Vec::new(), applied(scene.end("[[0,0]]"))];
    scene.impostor.sends_in_turn(&stream(CODECS[0], &wrong), &whole);
    refused("the second time");
    let mut honest = members(&[(NAME, scene.new.clone())]);
    let end = honest.pop().expect("an end record");
    honest.push(applied(end));
    scene.impostor.sends_in_turn(&stream(CODECS[0], &wrong), &stream(CODECS[0], &honest));
    scene.impostor.pull(&[]).ok();
}
