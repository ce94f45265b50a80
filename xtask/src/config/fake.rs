//! `fake(KIND)` in a `set` becomes SQL that invents a value. The same key gives the same value, in
//! every version of SQLite, and nothing of it comes from the value that it replaces.

use anyhow::Result;

use super::values::nearest;
use crate::error::Failure;
use crate::sql::{identifier, is_closed, literal, tokens};

// The leak check searches for removed values of eight bytes or more. No word here is that long, and
// no last name, city or word of a text is a real one: so no real value is found in an invented one.

/// First names, and after a `=` how a few are written in e-mail addresses.
const FIRST_NAMES: &str = "Ada Milo Zoë=zoe Hugo Priya Jonas Ines Femi Carla Sven 美咲=misaki Omar Lena Wim Tara \
                           José=jose Grace Dario Yara Kim Łukasz=lukasz Nadia Ben Chloé=chloe Quinn Rosa Søren=soren \
                           Emma Umar Vera Ayşe=ayse Theo Noor Jürgen=juergen Lucia Ravi Оля=olya Max Ida Tom";
const LAST_NAMES: &str = "Ashbrel Corvund O'Brell=obrell Fenwark Drimley Šarnek=sarnek Holvick Jandrel Elvoran \
                          Kestova Møllar=mollar Bramsel Garvek Imbery Lornvik Marbeth Nuñelo=nunelo Oakvane \
                          Pellorn Quilby Rothane Åkvel=akvel Silvorn Tarnwyn Ulverk Vexholm Wendrik Yarnlo \
                          Zephrel D'Arvon=darvon Norvell";
const CITIES: &str = "Brelton Corvane Dunfelk Zürnau Eastmor Fernoak Glenvik Harvowd Sørbek Kelmoor Lankeby \
                      Marwold Norquay Osterau Pinvale Rostell Velmont";
const COMPANIES: &str = "Labs Works Group Trading GmbH Ltd Inc Partner";
/// Area codes, in which 555 0100 to 555 0199 are reserved for fiction.
const AREAS: &str = "206 212 303 312 404 415 503 512 602 617 702 713 808 907 916";
/// The networks that RFC 5737 reserves for documentation.
const NETWORKS: &str = "192.0.2 198.51.100 203.0.113";
const FIRST_WORDS: &str = "Alveno Brimus Costera Dalmir Fervona Gantulo Helvar Istomen";
/// With a `_` between two words.
const PHRASES: &str = "abrel_bontu cavero_delmi estro_fanolu garim_helto invar_jolam kestu_lumero mintav_noreld \
                       ostuli_pravem quelto_rinova santul_tervim ulgane_veltri helto_cavero noreld_invar \
                       rinova_abrel delmi_santul lumero_garim";

/// What a value is derived from.
struct Key {
    /// An SQL expression that is not NULL.
    sql: String,
    /// An SQL expression that differs for each key, and has no special characters.
    text: String,
}

impl Key {
    fn rowid() -> Self {
        Self { sql: "rowid".to_owned(), text: "rowid".to_owned() }
    }

    /// A column of the user, or an expression; the newline ends a comment in it.
    fn of(sql: &str) -> Self {
        let sql = format!("coalesce(({sql}\n), '')");
        Self { text: format!("lower(substr(hex(sha3({sql})), 1, 16))"), sql }
    }

    /// The hexadecimal digits of a hash, another one for each purpose.
    fn hash(&self, purpose: &str) -> String {
        format!("hex(sha3({} || '{purpose}'))", self.sql)
    }

    /// An integer of up to 15 digits. `hex(hex(…))` has decimal digits too, but the outer one sees the
    /// bytes of UTF-16 in a database of that encoding.
    fn number(&self, purpose: &str) -> String {
        let digits = format!("substr({}, 1, 15)", self.hash(purpose));
        let letters = [("A", 1), ("B", 2), ("C", 3), ("D", 4), ("E", 5), ("F", 6)];
        letters.iter().fold(digits, |sql, (from, to)| format!("replace({sql}, '{from}', '{to}')"))
    }

    /// An integer from 0 to `n` - 1. Some digits are more frequent, so first a remainder by a prime.
    fn below(&self, n: usize, purpose: &str) -> String {
        format!("{} % 999999937 % {n}", self.number(purpose))
    }

    /// One of the words in `list`.
    fn pick(&self, list: &str, purpose: &str) -> String {
        self.pick_written(list, purpose, |word| {
            word.split('=').next().unwrap_or(word).replace('_', " ")
        })
    }

    /// The same word as [`Self::pick`], in lower case and ASCII.
    fn pick_ascii(&self, list: &str, purpose: &str) -> String {
        self.pick_written(list, purpose, |word| {
            word.rsplit('=').next().unwrap_or(word).to_lowercase()
        })
    }

    fn pick_written(&self, list: &str, purpose: &str, write: fn(&str) -> String) -> String {
        let words: Vec<_> = list.split_whitespace().map(write).collect();
        let width = words.iter().map(|word| word.chars().count()).max().unwrap_or(0);
        let padded: String = words.iter().map(|word| format!("{word:width$}")).collect();
        let at = self.below(words.len(), purpose);
        format!("rtrim(substr({}, 1 + {at} * {width}, {width}))", literal(&padded))
    }
}

type Make = fn(&Key) -> String;

/// The kinds, and the SQL of each.
const KINDS: [(&str, Make); 15] = [
    ("name", |key| format!("{} || ' ' || {}", first_name(key), last_name(key))),
    ("first_name", first_name),
    ("last_name", last_name),
    ("username", |key| format!("{} || {}", login(key, '_'), key.text)),
    ("email", |key| {
        let domain = key.pick("com org net", "domain");
        format!("{} || '.' || {} || '@example.' || {domain}", login(key, '.'), key.text)
    }),
    ("phone", |key| {
        let (area, line) = (key.pick(AREAS, "area"), key.below(100, "line"));
        format!("printf('+1 %s 555 01%02d', {area}, {line})")
    }),
    // 2433283 is the Julian day of 1950-01-01.
    ("birthday", |key| format!("date(2433283 + {})", key.below(20_000, "birthday"))),
    ("company", |key| {
        let (name, form) = (key.pick(LAST_NAMES, "company"), key.pick(COMPANIES, "form"));
        format!("{name} || ' ' || {form}")
    }),
    ("street", |key| {
        let (house, street) = (key.below(199, "house"), key.pick(LAST_NAMES, "street"));
        format!("(1 + {house}) || ' ' || {street} || ' Street'")
    }),
    ("city", |key| key.pick(CITIES, "city")),
    ("postcode", |key| format!("printf('%05d', {})", key.below(100_000, "postcode"))),
    ("iban", iban),
    ("ip", |key| {
        let (network, host) = (key.pick(NETWORKS, "network"), key.below(254, "host"));
        format!("{network} || '.' || (1 + {host})")
    }),
    ("ipv6", |key| {
        let hash = key.hash("ipv6");
        let groups = [1, 5, 9, 13].map(|from| format!("':' || substr({hash}, {from}, 4)"));
        // The network of RFC 3849.
        format!("lower('2001:db8:' || {})", groups.join(" || "))
    }),
    ("text", |key| {
        let [first, next] = ["first phrase", "next phrase"].map(|nth| key.pick(PHRASES, nth));
        format!("{} || ' ' || {first} || ' ' || {next} || '.'", key.pick(FIRST_WORDS, "first word"))
    }),
];

fn first_name(key: &Key) -> String {
    key.pick(FIRST_NAMES, "first name")
}

fn last_name(key: &Key) -> String {
    key.pick(LAST_NAMES, "last name")
}

/// The name that `name` gives too, in ASCII.
fn login(key: &Key, between: char) -> String {
    let first = key.pick_ascii(FIRST_NAMES, "first name");
    format!("{first} || '{between}' || {}", key.pick_ascii(LAST_NAMES, "last name"))
}

/// Of a bank `TEST`, which does not exist. The check digits are those of ISO 7064: 98 less the
/// remainder by 97 of TEST, the account, GB and 00, in which A is 10 and Z is 35.
fn iban(key: &Key) -> String {
    // The largest prime of 14 digits.
    let account = format!("({} % 99999999999973)", key.number("iban"));
    // The remainders of TEST00000000000000GB00 and of 1000000.
    format!("printf('GB%02dTEST%014d', 98 - (93 + {account} % 97 * 27) % 97, {account})")
}

/// The value of a `set` with SQL in the place of each `fake(KIND)` and `fake(KIND, KEY)`. With one of
/// them, NULL and an empty text stay as they are. `set` has the columns that the rule sets.
///
/// # Errors
///
/// A kind is unknown, or a key is a column that the rule sets.
pub fn expand(column: &str, value: &str, set: &[&str]) -> Result<String> {
    let tokens: Vec<_> = tokens(value).collect();
    let (mut sql, mut rest, mut has_call) = (String::new(), &tokens[..], false);
    while let [first, after @ ..] = rest {
        if let Some((arguments, after)) = call(rest) {
            sql += &format!("({})", invented(arguments, set)?);
            (rest, has_call) = (after, true);
        } else {
            sql += first;
            rest = after;
        }
    }
    // An open quote, which ends the tokens, is an error later.
    if !has_call || !is_closed(value) {
        return Ok(value.to_owned());
    }
    let column = identifier(column);
    // COLLATE, as the column may have a collation of the app.
    Ok(format!("CASE WHEN {column} COLLATE BINARY <> '' THEN {sql}\nELSE {column} END"))
}

/// The arguments of the call of `fake` that the tokens begin with, and what follows the call.
fn call<'a, 't>(tokens: &'a [&'t str]) -> Option<(&'a [&'t str], &'a [&'t str])> {
    let (name, after) = tokens.split_first()?;
    let open = after.iter().position(|token| !token.trim().is_empty())?;
    if !name.eq_ignore_ascii_case("fake") || after[open] != "(" {
        return None;
    }
    let mut depth = 0;
    let length = after[open..].iter().position(|token| {
        depth += i32::from(*token == "(") - i32::from(*token == ")");
        depth == 0
    })?;
    Some((&after[open + 1..open + length], &after[open + length + 1..]))
}

fn invented(arguments: &[&str], set: &[&str]) -> Result<String> {
    let comma = arguments.iter().position(|token| *token == ",").unwrap_or(arguments.len());
    let (kind, key) = arguments.split_at(comma);
    let kind = kind.concat();
    let make = make(kind.trim())?;
    let named = key.split_first().map(|(_, key)| key);
    let key = named.unwrap_or(&["rowid"]);
    let is_set = |token: &&&str| {
        set.iter()
            .any(|column| column.eq_ignore_ascii_case(token.trim_matches(['"', '`', '[', ']'])))
    };
    if let Some(column) = key.iter().find(is_set) {
        let why = "a rule replaces that column: a list of likely values would reveal the old ones";
        return Err(Failure::usage(format!("fake({kind}, {column}): {why}"))
            .hint("the key is a column that stays as it is, such as the primary key")
            .into());
    }
    Ok(make(&named.map_or_else(Key::rowid, |key| Key::of(key.concat().trim()))))
}

fn make(kind: &str) -> Result<Make> {
    if let Some((_, make)) = KINDS.iter().find(|(name, _)| *name == kind) {
        return Ok(*make);
    }
    let names = KINDS.map(|(name, _)| name);
    let near = nearest(kind, names.into_iter());
    let near = near.map(|near| format!("did you mean `fake({near})`? ")).unwrap_or_default();
    Err(Failure::usage(format!("there is no fake({kind})"))
        .hint(format!("{near}there are {}", names.join(", ")))
        .into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use rusqlite::Connection;

    use super::*;
    use crate::fixtures::hash::add_sha3;

    /// What becomes of a column `c` with this content.
    fn set(value: &str, content: &str) -> Vec<Option<String>> {
        let db = Connection::open_in_memory().unwrap();
        add_sha3(&db).unwrap();
        db.execute_batch(&format!("CREATE TABLE t (id, c); INSERT INTO t {content}")).unwrap();
        let value = expand("c", value, &["c"]).unwrap();
        let mut query = db.prepare(&format!("SELECT {value} FROM t ORDER BY rowid")).unwrap();
        let values = query.query_map([], |row| row.get(0)).unwrap();
        values.collect::<rusqlite::Result<_>>().unwrap()
    }

    const ROWS: &str = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                        SELECT 'k' || i, 'x' FROM n";

    fn values(call: &str) -> Vec<String> {
        set(call, ROWS).into_iter().flatten().collect()
    }

    #[test]
    fn no_word_is_long_enough_for_the_leak_check() {
        let lists = [FIRST_NAMES, LAST_NAMES, CITIES, COMPANIES, FIRST_WORDS, PHRASES];
        for word in lists.iter().flat_map(|list| list.split([' ', '=', '_'])) {
            assert!(!word.is_empty() && word.len() < 8, "{word}");
        }
    }

    #[test]
    fn some_kinds_differ_for_each_key_and_the_others_vary() {
        for key in ["", ", id"] {
            let distinct = |kind: &str| {
                let values: HashSet<_> =
                    values(&format!("fake({kind}{key})")).into_iter().collect();
                values.len()
            };
            for kind in ["email", "username", "iban", "ipv6"] {
                assert_eq!(distinct(kind), 5000, "{kind}{key}");
            }
            for (kind, least) in [("name", 1100), ("birthday", 4000), ("phone", 1300), ("ip", 700)]
            {
                assert!(distinct(kind) > least, "{kind}{key}: {}", distinct(kind));
            }
            assert_eq!(distinct("city"), CITIES.split(' ').count());
        }
    }

    #[test]
    fn each_kind_has_the_form_of_its_standard() {
        for iban in values("fake(iban)") {
            let moved = format!("{}{}", &iban[4..], &iban[..4]);
            let number = moved.chars().fold(0, |rest, c| {
                let digit = c.to_digit(36).unwrap();
                (rest * if digit > 9 { 100 } else { 10 } + digit) % 97
            });
            assert!(number == 1 && iban.len() == 22, "{iban}");
        }
        for ip in values("fake(ip)").into_iter().chain(values("fake(ipv6)")) {
            let parsed: IpAddr = ip.parse().unwrap();
            match parsed {
                IpAddr::V4(ip) => assert!(ip.is_documentation(), "{ip}"),
                IpAddr::V6(ip) => assert!(ip.to_string().starts_with("2001:db8:"), "{ip}"),
            }
        }
        for email in values("fake(email)").into_iter().chain(values("fake(username)")) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._@".contains(c);
            assert!(email.chars().all(plain), "{email}");
        }
    }

    #[test]
    fn null_and_empty_texts_stay_and_nothing_else_does() {
        let rows = "VALUES (1, NULL), (2, ''), (3, char(0) || 'a'), (4, x'00'), (5, 0), (6, ' ')";
        let found = set("fake(city)", rows);
        assert_eq!(found[..2], [None, Some(String::new())]);
        let invented =
            |value: &Option<String>| value.as_deref().is_some_and(|v| CITIES.contains(v));
        assert!(found[2..].iter().all(invented), "{found:?}");
    }

    #[test]
    fn a_call_is_found_wherever_sql_has_one_and_nowhere_else() {
        let one = |value: &str| set(value, "VALUES ('k', 'x')").remove(0).unwrap();
        let (first, last) = (one("fake(first_name)"), one("fake(last_name)"));
        for (value, expected) in [
            (
                "fake(first_name) || ' ' || upper( FAKE ( last_name ) )",
                format!("{first} {}", last.to_uppercase()),
            ),
            ("'fake(x)' || fake(first_name) -- fake(y)", format!("fake(x){first}")),
            (
                "CASE WHEN c = 'fake(' /* fake( */ THEN 1 ELSE fake(name, (id || ')') -- )\n) END",
                one("fake(name, id || ')')"),
            ),
        ] {
            assert_eq!(one(value), expected, "{value}");
        }
        for value in [
            "fakes(email)",
            "'it''s fake(x)'",
            "\"fake\"(x)",
            "fake",
            "fake(email) || '",
            "fake(email",
        ] {
            assert_eq!(expand("c", value, &[]).unwrap(), value);
        }
    }

    #[test]
    fn an_error_names_the_kinds_and_a_key_that_would_reveal_something() {
        let failure = |value: &str| {
            let error = expand("email", value, &["email", "Full name"]).unwrap_err();
            format!("{error:#}\n{}", crate::error::hint(&error).unwrap())
        };
        assert!(failure("fake(emial)").starts_with(
            "there is no fake(emial)\ndid you mean `fake(email)`? there are name, first_name, "
        ));
        assert!(failure("fake()").starts_with("there is no fake()\nthere are name, "));
        assert!(
            format!("{:#}", expand("a", "fake(email)", &["a", "RowID"]).unwrap_err())
                .starts_with("fake(email, rowid): a rule replaces that column")
        );
        for key in ["EMAIL", "lower([email])", "id || \"full name\""] {
            assert!(
                failure(&format!("fake(name, {key})")).contains("would reveal the old ones"),
                "{key}"
            );
        }
    }
}
