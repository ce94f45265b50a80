//! Where the app opens its databases on this machine, as its framework's settings say.

use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use crate::init::files;

/// What the settings of a framework say.
#[derive(Debug, PartialEq, Eq)]
pub struct App {
    pub framework: &'static str,
    /// The file that says so, from the root of the repository.
    pub file: String,
    /// The database here, from the root of the repository.
    pub database: String,
    /// What it is called in production, if the settings say so.
    pub production: Option<String>,
}

impl App {
    /// The directory that has the database, from the root of the repository.
    pub fn directory(&self) -> &str {
        self.database.rsplit_once('/').map_or(".", |(directory, _)| directory)
    }

    pub fn file_name(&self) -> &str {
        self.database.rsplit('/').next().unwrap_or(&self.database)
    }
}

/// What is found, in the order of the files' names.
pub fn find(root: &Path) -> Vec<App> {
    let mut found = Vec::new();
    for file in files::below(root, 3) {
        let Some(read) = reader(&file) else { continue };
        let Some(text) = files::read(root, &file) else { continue };
        for Said { framework, up, path, production } in read(&text) {
            let from = file.rsplitn(up + 2, '/').nth(up + 1).unwrap_or(".");
            if let Some(database) = joined(from, &path) {
                found.push(App { framework, file: file.clone(), database, production });
            }
        }
    }
    found
}

struct Said {
    framework: &'static str,
    /// The path counts from so many directories above that of the file.
    up: usize,
    path: String,
    production: Option<String>,
}

type Reader = fn(&str) -> Vec<Said>;

fn reader(file: &str) -> Option<Reader> {
    let name = file.rsplit('/').next().unwrap_or(file);
    Some(match name {
        "database.yml" => rails,
        "schema.prisma" => prisma,
        "alembic.ini" => alembic,
        "settings.py" => |text| django(text, 1),
        _ if file.contains("settings/") && name.ends_with(".py") => |text| django(text, 2),
        _ if name.starts_with("drizzle.config.") => drizzle,
        _ if name.starts_with("knexfile.") => knex,
        _ => return None,
    })
}

fn said(framework: &'static str, up: usize, path: &str) -> Vec<Said> {
    vec![Said { framework, up, path: path.to_owned(), production: None }]
}

fn is_database(path: &&str) -> bool {
    [".sqlite3", ".sqlite", ".db"].iter().any(|end| path.ends_with(end)) && !path.contains("//")
}

/// A `database` of each name in the section of development; `production` has another.
fn rails(text: &str) -> Vec<Said> {
    // Templates within are texts for YAML, if at all.
    let Ok(documents) = YamlLoader::load_from_str(text) else { return Vec::new() };
    let Some(document) = documents.first() else { return Vec::new() };
    let databases = |section: &str| -> Vec<(String, String)> {
        let section = &document[section];
        let one = |name: &str, settings: &Yaml| {
            let path = settings["database"].as_str()?;
            (!path.contains("<%")).then(|| (name.to_owned(), path.to_owned()))
        };
        let single = one("", section);
        let several = section.as_hash().into_iter().flatten();
        let several = several.filter_map(|(name, settings)| one(name.as_str()?, settings));
        single.into_iter().chain(several).collect()
    };
    let production = databases("production");
    let same = |name: &str| {
        production.iter().find(|(it, _)| it == name || it == "primary" && name.is_empty())
    };
    let found = databases("development").into_iter().filter(|(_, path)| is_database(&&**path));
    found
        .map(|(name, path)| Said {
            framework: "Rails",
            up: 1,
            production: same(&name).map(|(_, path)| path.clone()),
            path,
        })
        .collect()
}

/// `"NAME": BASE_DIR / "var" / "db.sqlite3"`, in a line after the engine. Another variable could be
/// any directory.
fn django(text: &str, up: usize) -> Vec<Said> {
    let Some(at) = text.find("django.db.backends.sqlite3") else { return Vec::new() };
    let names = text[at..].lines().take(6).filter(|line| line.contains("NAME"));
    let path = |line: &str| {
        let value = line.split_once(':').map_or(line, |(_, value)| value);
        let parts = match value.split_once("BASE_DIR") {
            Some((_, below)) => quoted(below),
            None if value.trim_start().starts_with(['"', '\'']) => quoted(value),
            None => Vec::new(),
        };
        Some(parts.join("/")).filter(|path| is_database(&&**path))
    };
    names.filter_map(path).flat_map(|path| said("Django", up, &path)).take(1).collect()
}

fn prisma(text: &str) -> Vec<Said> {
    let is_sqlite = text.lines().any(|line| line.contains("provider") && line.contains("sqlite"));
    let urls = text.lines().filter(|line| line.trim_start().starts_with("url"));
    let path = urls.flat_map(quoted).find_map(|url| url.strip_prefix("file:"));
    match path.filter(|_| is_sqlite) {
        Some(path) => said("Prisma", 0, path),
        None => Vec::new(),
    }
}

fn alembic(text: &str) -> Vec<Said> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("sqlalchemy.url"));
    let path =
        value.and_then(|value| value.trim_start_matches([' ', '=']).strip_prefix("sqlite:///"));
    path.map_or_else(Vec::new, |path| said("Alembic", 0, path))
}

fn drizzle(text: &str) -> Vec<Said> {
    let urls = text.lines().filter(|line| line.trim_start().starts_with("url"));
    named("Drizzle", urls)
}

fn knex(text: &str) -> Vec<Said> {
    named("Knex", text.lines().filter(|line| line.contains("filename")))
}

/// The first path of a database in these lines.
fn named<'a>(framework: &'static str, lines: impl Iterator<Item = &'a str>) -> Vec<Said> {
    let mut texts = lines.flat_map(quoted).map(|text| text.strip_prefix("file:").unwrap_or(text));
    texts.find(is_database).map_or_else(Vec::new, |path| said(framework, 0, path))
}

/// The texts in quotes of a line.
fn quoted(line: &str) -> Vec<&str> {
    let quote = |c: char| "\"'`".contains(c);
    line.split(quote).skip(1).step_by(2).collect()
}

/// `path` from the directory `from`; `None` if it leaves the repository.
fn joined(from: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains(['\\', '$', '{']) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frameworks_say_where_the_app_opens_its_databases() {
        for (file, text, expected) in [
            (
                "config/database.yml",
                "default: &default\n  adapter: sqlite3\n  pool: <%= ENV.fetch(\"RAILS_MAX_THREADS\") { 5 } %>\n\
                 development:\n  <<: *default\n  database: storage/development.sqlite3\n\
                 production:\n  primary:\n    <<: *default\n    database: storage/production.sqlite3\n",
                "Rails storage/development.sqlite3 storage/production.sqlite3",
            ),
            (
                "config/database.yml",
                "development:\n  primary: {database: db/a.db}\n  queue: {database: db/q.db}\nproduction:\n  queue: {database: db/pq.db}\n",
                "Rails db/a.db, Rails db/q.db db/pq.db",
            ),
            (
                "config/database.yml",
                "development:\n  adapter: postgresql\n  database: app_development\n",
                "",
            ),
            (
                "mysite/settings.py",
                "DATABASES = {\n    \"default\": {\n        \"ENGINE\": \"django.db.backends.sqlite3\",\n        \"NAME\": BASE_DIR / \"db.sqlite3\",\n    }\n}\n",
                "Django db.sqlite3",
            ),
            (
                "backend/mysite/settings.py",
                "'ENGINE': 'django.db.backends.sqlite3', \n'NAME': os.path.join(BASE_DIR, 'data.db'),\n",
                "Django backend/data.db",
            ),
            (
                "mysite/settings/base.py",
                "\"ENGINE\": \"django.db.backends.sqlite3\",\n\"NAME\": BASE_DIR / 'var' / 'shop.sqlite3',\n",
                "Django var/shop.sqlite3",
            ),
            (
                "mysite/settings.py",
                "\"ENGINE\": \"django.db.backends.sqlite3\",\n\"NAME\": DATA_DIR / 'shop.sqlite3',\n",
                "",
            ),
            (
                "prisma/schema.prisma",
                "datasource db {\n  provider = \"sqlite\"\n  url      = \"file:./dev.db\"\n}\n",
                "Prisma prisma/dev.db",
            ),
            (
                "prisma/schema.prisma",
                "  provider = \"sqlite\"\n  url = env(\"DATABASE_URL\")\n",
                "",
            ),
            (
                "drizzle.config.ts",
                "export default {\n  dialect: 'sqlite',\n  dbCredentials: {\n    url: 'file:./local.db',\n  },\n};\n",
                "Drizzle local.db",
            ),
            ("knexfile.js", "connection: {\n  filename: './dev.sqlite3'\n}", "Knex dev.sqlite3"),
            (
                "server/alembic.ini",
                "[alembic]\nsqlalchemy.url = sqlite:///./app.db\n",
                "Alembic server/app.db",
            ),
            ("alembic.ini", "sqlalchemy.url = sqlite:////data/app.db\n", ""),
            ("alembic.ini", "sqlalchemy.url = sqlite:///../app.db\n", ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            let found = find(dir.path()).into_iter().map(|app| {
                let production = app.production.map(|path| format!(" {path}")).unwrap_or_default();
                format!("{} {}{production}", app.framework, app.database)
            });
            assert_eq!(found.collect::<Vec<_>>().join(", "), expected, "{file}: {text}");
        }
    }
}
