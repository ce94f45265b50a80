//! Words in the name or the declared type of a column that suggest a secret or personal data, and
//! forms of values that are active secrets.
//!
//! Names are compared as words in lower case: `apiKey`, `API_KEY` and `api-key2` are
//! `api key`. Lists are separated by commas.

use super::Kind;

/// A class of data.
pub struct Class {
    pub kind: Kind,
    /// The declared types that can hold it: `text` (also for no type), `number`, `time`.
    pub types: &'static str,
    /// Distinctive strings: they match within a word too.
    pub within: &'static str,
    /// Consecutive words of a name.
    pub words: &'static str,
    /// Complete names.
    pub names: &'static str,
}

pub const CLASSES: [Class; 5] = [
    // Credentials.
    Class {
        kind: Kind::Secret,
        types: "text",
        within: "password, passwd, passphrase, passcode, secret, token, credential, apikey, privatekey, \
                 sessionid, mnemonic",
        words: "key, keys, pwd, pass, pw, salt, hash, hashes, session, sessions, cookie, cookies, jwt, bearer, \
                csrf, xsrf, dsn, access code, auth code, backup code, backup codes, invite code, login code, \
                recovery code, recovery codes, reset code, verification code, security answer, seed phrase, \
                connection string, conn string, conn str, database url, magic link, reset digest, webhook url",
        names: "auth, authorization, sid",
    },
    // Numeric credentials.
    Class {
        kind: Kind::Secret,
        types: "text number",
        within: "",
        words: "otp, totp, pin, cvv, cvc, security code",
        names: "",
    },
    // Identity and address of a person.
    Class {
        kind: Kind::Personal,
        types: "text",
        within: "email, username, surname, firstname, lastname, fullname, cardholder, ipaddress",
        words: "e mail, e mails, address, addresses, addr, street, postcode, zipcode, postal code, post code, \
                zip code, first name, last name, middle name, full name, given name, family name, maiden name, \
                legal name, real name, user name, screen name, nickname, card holder, account holder, holder name, gender, \
                sex, religion, ethnicity, nationality, diagnosis",
        names: "mail, login",
    },
    // The same as numbers.
    Class {
        kind: Kind::Personal,
        types: "text number",
        within: "telephone, phonenumber, creditcard, cardnumber, passport",
        words: "phone, phones, tel, fax, msisdn, mobile number, mobile phone, ssn, social security, national id, \
                tax id, driver license, drivers license, driving licence, license number, licence number, iban, \
                bic, swift code, sort code, routing number, account number, bank account, card, cards, ip, ips, \
                ipv, salary",
        names: "mobile, cell, pan",
    },
    Class {
        kind: Kind::Personal,
        types: "text number time",
        within: "birthday, birthdate",
        words: "birth, dob",
        names: "born",
    },
];

/// Names that have a meaning only in some tables: the endings of the tables' names, or after a `=`
/// the complete names; the complete names of the columns; words of which another column must have
/// one, if there are any.
pub const IN_TABLES: [(Kind, &str, &str, &str); 4] = [
    (
        Kind::Personal,
        "user, users, member, members, customer, customers, person, persons, people, contact, contacts, \
         patient, patients, employee, employees, guest, guests, subscriber, subscribers, student, students, \
         profile, profiles",
        "name, display name",
        "",
    ),
    (
        Kind::Secret,
        "token, tokens, verification, verifications, otp, otps, credential, credentials, secret, secrets, \
         password, passwords",
        "value, code, data, identifier, payload",
        "",
    ),
    (Kind::Secret, SESSIONS, "value, data, payload, sess", ""),
    // The id of a login session is a secret; the id of a lesson or concert session is not.
    (
        Kind::Secret,
        SESSIONS,
        "id",
        "data, payload, sess, token, csrf, expire, expires, expired, expiry, expiration, user agent, ip address, \
         last activity",
    ),
];
const SESSIONS: &str =
    "=session, =sessions, =user session, =user sessions, =auth session, =auth sessions";

/// Hashes that frameworks store with their migrations: endings of the tables' names, and the
/// columns.
pub const BOOKKEEPING: (&str, &str) = (
    "migrations, migration, schema history, schema revisions, databasechangelog, room master table",
    "hash, hashes, partial hashes, identity hash, checksum hash",
);

/// Words that make a name describe dates, counts or switches instead of the data itself.
pub const NOT_BEGINNING: &str = "is, has, can, needs, require, requires, allow, allows, enable, show, hide, use, \
                                 uses, num, total, max, min";
pub const NOT_ENDING: &str = "at, on, count, counts, type, types, kind, status, enabled, disabled, verified, \
                              confirmed, required, expires, expiry, expiration, ttl, length, size, bytes, \
                              version, algorithm, alg, template, subject, format, policy, limit, attempts, \
                              strength, label, prefix, visible, sent, consent, frequency, provider, domain, \
                              brand, used, notifications, title, color, model";
/// Only for secrets: `first_name` is personal, `key_name` is not a secret.
pub const NO_SECRET_ENDING: &str = "name, date, number, index, order, position, notes";
pub const NO_SECRET_WORDS: &str = "public key, primary key, foreign key, sort key, cache key, group key, \
                                   partition key, translation key, idempotency key, unique key, feature key, concurrency key, hash tag, \
                                   commit hash, content hash, file hash, git hash, image hash, body hash, \
                                   schema hash, block hash, tx hash, transaction hash";
pub const NO_SECRET_WITHIN: &str = "secretar, tokeniz, tokenis";
/// If the second column exists too, the first one is only its label.
pub const BESIDE: [(&str, &str); 2] = [("key", "value"), ("key", "val")];

/// What a hint proposes instead of personal data: parts of names, in which each word is between two
/// `_`, and the kind of `fake()`. The first one that matches counts.
pub const FAKES: [(&str, &str); 11] = [
    ("mail", "email"),
    ("ip_addr, ipaddr, _ip_, _ips_, _ipv_", "ip"),
    ("username, user_name, login, screen_name, nickname", "username"),
    ("firstname, first_name, given_name, middle_name", "first_name"),
    ("lastname, last_name, surname, family_name, maiden_name", "last_name"),
    ("fullname, cardholder, card_holder, account_holder, _name_", "name"),
    ("phone, mobile, msisdn, _tel_, _fax_, _cell_", "phone"),
    ("postcode, post_code, postal_code, zip_code, zipcode", "postcode"),
    ("street, _address_, _addr_", "street"),
    ("birthday, birthdate, birth_date, date_of_birth, _dob_, _born_", "birthday"),
    ("_iban_", "iban"),
];

/// Patterns of secrets, in `GLOB` syntax; `{16}` repeats the class before it. The part before the
/// first `*` is also a regular expression. It begins with at least three letters, by which values
/// after a zero byte are found, which SQLite's `GLOB` does not see.
pub const VALUES: [(Kind, &[&str]); 7] = [
    (Kind::Pem, &["-----BEGIN *PRIVATE KEY"]),
    (Kind::Aws, &["AKIA[A-Z0-9]{16}", "ASIA[A-Z0-9]{16}"]),
    (
        Kind::Github,
        &[
            "gho_[A-Za-z0-9]{20}",
            "ghp_[A-Za-z0-9]{20}",
            "ghs_[A-Za-z0-9]{20}",
            "ghu_[A-Za-z0-9]{20}",
            "ghr_[A-Za-z0-9]{20}",
            "github_pat_[A-Za-z0-9_]{20}",
        ],
    ),
    (Kind::Stripe, &["sk_live_[A-Za-z0-9]{10}", "rk_live_[A-Za-z0-9]{10}"]),
    (Kind::Slack, &["xox[abprs]-[A-Za-z0-9-]{10}", "hooks.slack.com/services/T[A-Z0-9]{6}"]),
    (Kind::Jwt, &["eyJ[A-Za-z0-9_-]{8}*.eyJ[A-Za-z0-9_-]{8}*.[A-Za-z0-9_-]"]),
    // In JSON, the ends of names, whose first letter may be a capital. The value must not look like
    // a sentence, a placeholder or a switch.
    (
        Kind::Json,
        &[
            r#"assword":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"assword": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"assword":"[$][0-9a][^" ]{7}"#,
            r#"assword": "[$][0-9a][^" ]{7}"#,
            r#"ecret":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"ecret": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"ecret_key":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"ecret_key": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"ecretKey":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"ecretKey": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"pi_key":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"pi_key": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"piKey":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"piKey": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"ccess_key":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"ccess_key": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"ccessKey":"[A-Za-z0-9+/][^" ]{7}"#,
            r#"ccessKey": "[A-Za-z0-9+/][^" ]{7}"#,
            r#"oken":"[A-Za-z0-9+/_=.-]{16}"#,
            r#"oken": "[A-Za-z0-9+/_=.-]{16}"#,
        ],
    ),
];
