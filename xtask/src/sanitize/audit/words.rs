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
                mfa seed, otp seed, totp seed, connection string, conn string, conn str, database url, magic link, reset digest, webhook url",
        names: "auth, authorization, sid, confirm",
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
                tax id, tax number, tax no, tax ref, vat id, vat number, vat no, driver license, drivers license, driving licence, license number, licence number, iban, \
                bic, swift code, sort code, routing number, account number, bank account, card, cards, ip, ips, \
                ipv, salary",
        names: "mobile, cell, pan, vat",
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
pub const IN_TABLES: [(Kind, &str, &str, &str); 7] = [
    (Kind::Personal, PERSONS, "name, display name, company, company name", ""),
    (Kind::Personal, PERSONS, PLACES, ""),
    (
        Kind::Personal,
        "address, addresses, order, orders, shipment, shipments, lead, leads",
        PLACES,
        "",
    ),
    (
        Kind::Secret,
        "token, tokens, verification, verifications, otp, otps, credential, credentials, secret, secrets, \
         password, passwords",
        "value, code, data, identifier, payload",
        "",
    ),
    // A code that is money.
    (Kind::Secret, "giftcard, giftcards, gift card, gift cards, voucher, vouchers", "code", ""),
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
const PERSONS: &str = "user, users, member, members, customer, customers, person, persons, people, contact, contacts, \
                       patient, patients, employee, employees, guest, guests, subscriber, subscribers, student, \
                       students, profile, profiles";
const PLACES: &str = "zip, ship zip, shipping zip, billing zip, delivery zip, city, ship city, shipping city, \
                      billing city, delivery city, lat, lng, lon, latitude, longitude, location, geolocation";
const SESSIONS: &str =
    "=session, =sessions, =user session, =user sessions, =auth session, =auth sessions";

/// Names that suggest a secret, but are none in these tables: the endings of the tables' names, and
/// the columns. Frameworks store hashes with their migrations; a file is found by its key.
pub const NO_SECRETS_IN: [(&str, &str); 3] = [
    (
        "migrations, migration, schema history, schema revisions, databasechangelog, room master table",
        "hash, hashes, partial hashes, identity hash, checksum hash",
    ),
    ("blob, blobs, attachment, attachments, upload, uploads, asset, assets, file, files", "key"),
    (
        "product, products, category, categories, feature, features, flag, flags, flipper gates, plan, plans, \
         permission, permissions, role, roles, tag, tags, label, labels, translation, translations, template, \
         templates, event, events, metric, metrics, job, jobs",
        "key",
    ),
];

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
pub const FAKES: [(&str, &str); 13] = [
    ("mail", "email"),
    ("ip_addr, ipaddr, remote_addr, client_addr, peer_addr, _ip_, _ips_, _ipv_", "ip"),
    ("username, user_name, login, screen_name, nickname", "username"),
    ("firstname, first_name, given_name, middle_name", "first_name"),
    ("lastname, last_name, surname, family_name, maiden_name", "last_name"),
    ("fullname, cardholder, card_holder, account_holder, _name_", "name"),
    ("phone, mobile, msisdn, _tel_, _fax_, _cell_", "phone"),
    ("postcode, post_code, postal_code, zip_code, zipcode, _zip_", "postcode"),
    ("street, _address_, _addr_", "street"),
    ("_city_", "city"),
    ("_company_", "company"),
    ("birthday, birthdate, birth_date, date_of_birth, _dob_, _born_", "birthday"),
    ("_iban_", "iban"),
];

/// A pattern of values, in `GLOB` syntax; `{16}` repeats the class before it. It begins with at
/// least three literal characters, by which values after a zero byte are found, which SQLite's
/// `GLOB` does not see. Its part before the first `*` is what grep searches for in large copies.
pub const VALUES: [(Kind, &[&str]); 10] = [
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
    (
        Kind::Stripe,
        &[
            "sk_live_[A-Za-z0-9]{10}",
            "rk_live_[A-Za-z0-9]{10}",
            "whsec_[A-Za-z0-9+/]{24}",
            // What pays for a PaymentIntent or a SetupIntent.
            "_secret_[A-Za-z0-9]{20}",
        ],
    ),
    (
        Kind::Slack,
        &[
            "xox[abprs]-[A-Za-z0-9-]{10}",
            "xapp-[0-9]-[A-Z0-9]{8}",
            "hooks.slack.com/services/T[A-Z0-9]{6}",
        ],
    ),
    (Kind::Jwt, &["eyJ[A-Za-z0-9_-]{8}*.eyJ[A-Za-z0-9_-]{8}*.[A-Za-z0-9_-]"]),
    (
        Kind::Key,
        &[
            // OpenAI, Anthropic, Hugging Face, Google.
            "sk-proj-[A-Za-z0-9_-]{16}",
            "sk-svcacct-[A-Za-z0-9_-]{16}",
            "sk-ant-[A-Za-z0-9_-]{16}",
            "hf_[A-Za-z0-9]{30}",
            "AIza[A-Za-z0-9_-]{35}",
            "GOCSPX-[A-Za-z0-9_-]{20}",
            // Of Google's OAuth.
            "ya29.[A-Za-z0-9_-]{20}",
            "1//0[A-Za-z0-9_-]{30}",
            // SendGrid, Mailgun, Resend, Shopify, Square, Telegram.
            "SG.[A-Za-z0-9_-]{22}.[A-Za-z0-9_-]{20}",
            "key-[0-9a-f]{32}",
            "re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20}",
            "shpat_[A-Fa-f0-9]{32}",
            "shpss_[A-Fa-f0-9]{32}",
            "sq0atp-[A-Za-z0-9_-]{22}",
            "sq0csp-[A-Za-z0-9_-]{40}",
            ":AA[A-Za-z0-9_-]{33}",
            // GitLab, npm, PyPI, Fly.io, DigitalOcean, Linear, Atlassian, age, Azure.
            "glpat-[A-Za-z0-9_-]{20}",
            "npm_[A-Za-z0-9]{36}",
            "pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{16}",
            "fm2_lJ[A-Za-z0-9+/=]{16}",
            "dop_v1_[a-f0-9]{32}",
            "lin_api_[A-Za-z0-9]{32}",
            "ATATT3[A-Za-z0-9_=-]{32}",
            "AGE-SECRET-KEY-1[A-Z0-9]{20}",
            "AccountKey=[A-Za-z0-9+/]{40}",
            // Addresses that need no password: a webhook, a browser's push service, a private calendar, a
            // query with a key or a token.
            "discord.com/api/webhooks/[0-9]{17}",
            "fcm.googleapis.com/fcm/send/[A-Za-z0-9_-]{10}",
            "push.services.mozilla.com/wpush/v",
            "/private-[0-9a-f]{32}",
            "apikey=[A-Za-z0-9_-]{16}",
            "api_key=[A-Za-z0-9_-]{16}",
            "token=[A-Za-z0-9_.-]{20}",
            // Django's address for a new password.
            "/reset/[A-Za-z0-9_]*/[a-z0-9]{6}-[0-9a-f]{32}",
        ],
    ),
    (
        Kind::Hash,
        &[
            "$2a$[0-9]{2}$[A-Za-z0-9./]{20}",
            "$2b$[0-9]{2}$[A-Za-z0-9./]{20}",
            "$2y$[0-9]{2}$[A-Za-z0-9./]{20}",
            "$argon2i[d$]*$[A-Za-z0-9+/]{10}",
            "$scrypt$[A-Za-z0-9+/=,$]{20}",
            "$6$[A-Za-z0-9./$=]{30}",
            "pbkdf2_sha256$[0-9]{4}",
            "pbkdf2:sha256:[0-9]{4}",
            "pbkdf2-sha256$[0-9]{2}",
            "scrypt:32768:[0-9]",
        ],
    ),
    // In JSON, the ends of names, whose first letter may be a capital, with or without a blank after
    // the colon. The value must not look like a sentence, a placeholder or a switch.
    (
        Kind::Json,
        &[
            r#"assword":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"assword":[ "]["$][0-9a$][0-9a][^" ]{7}"#,
            r#"ecret":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"ecret_key":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"ecretKey":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"pi_key":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"piKey":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"ccess_key":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"ccessKey":[ "]["A-Za-z0-9+/][^" ]{7}"#,
            r#"oken":[ "]["A-Za-z0-9+/_=.-][A-Za-z0-9+/_=.-]{15}"#,
        ],
    ),
    (
        Kind::JsonPersonal,
        &[
            r#"mail":[ "][^ ,@}][^" ,@}]*@"#,
            r#"hone":[ "]["+(0-9][+(0-9][0-9 ()/.-]{5}"#,
            r#"irst_name":[ "][^ ,}][^" ,}]"#,
            r#"irstName":[ "][^ ,}][^" ,}]"#,
            r#"ast_name":[ "][^ ,}][^" ,}]"#,
            r#"astName":[ "][^ ,}][^" ,}]"#,
            r#"treet":[ "][^ ,}][^" ,}]"#,
        ],
    ),
];

/// A password in a URL: what stands between `begins` and the next `@` is a user, which may be
/// empty, a colon and a password, and nothing of a path, a query or a placeholder.
pub struct Url {
    pub begins: &'static str,
    pub pattern: &'static str,
    pub unless: &'static str,
    /// The same for grep.
    pub form: &'static str,
}

pub const URL: Url = Url {
    begins: "://",
    pattern: "://*:?*@",
    unless: "://*[] /?#\"'<>{},;\\]*",
    form: "://[^/:@ ]*:[^/@ ]+@",
};

/// Values that are personal data as a whole, in columns whose names say nothing: a pattern that
/// must match, and patterns of which none may.
pub const WHOLE_VALUES: [(Kind, &str, &[&str]); 5] = [
    (
        Kind::Email,
        "?*@?*.[A-Za-z]*[A-Za-z]",
        &["*[] \n<>()[:/\",;|\\]*", "*@*@*", "*@*[^A-Za-z0-9.-]*"],
    ),
    (Kind::Phone, "+[1-9]*[0-9]*[0-9]*[0-9]*[0-9]*[0-9]*[0-9]*[0-9]", &["?*[^0-9 ()./-]*"]),
    // Neither a version nor an address of a private network.
    (
        Kind::Ip,
        "[1-9][0-9]*.[0-9]*.[0-9]*.[0-9]*",
        &["*[^0-9.]*", "*.*.*.*.*", "*[0-9][0-9][0-9][0-9]*", "*..*", "10.*", "127.*", "192.168.*"],
    ),
    (
        Kind::Iban,
        "[A-Z][A-Z][0-9][0-9][A-Z0-9 ]????????*[0-9][0-9]",
        &["*[^A-Z0-9 ]*", "???????????????????????????????????????????*"],
    ),
    // A list or an object with an address as one of its values.
    (Kind::JsonPersonal, "[[{]*\"*[A-Za-z0-9._+-]@[A-Za-z]*.[a-z]*[a-z]\"*", &[]),
];

/// Tables of settings, a row each: the column with a setting's name, and the one with its value.
pub const SETTINGS: [(&str, &str); 12] = [
    ("key", "value"),
    ("key", "val"),
    ("name", "value"),
    ("setting", "value"),
    ("setting_key", "setting_value"),
    ("option", "value"),
    ("option_name", "option_value"),
    ("config_key", "config_value"),
    ("meta_key", "meta_value"),
    ("property", "value"),
    ("var", "value"),
    ("variable", "value"),
];

/// Parts of the names of settings whose values are secrets; `_` stands for any character.
pub const SECRET_SETTINGS: [&str; 19] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "privatekey",
    "private_key",
    "accesskey",
    "access_key",
    "signing_key",
    "encryption_key",
    "smtp_pass",
    "jwt",
    "dsn",
    "psk",
    "webhook_url",
];
