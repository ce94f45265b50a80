//! Where production may be, as configurations for Fly.io and Compose files in the repository say.

use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use crate::config::FlyConfig;
use crate::init::{files, setting};

/// A place that `db.toml` can name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The file that says so, from the root of the repository.
    pub file: String,
    pub app: Option<String>,
    /// As `via` has it; `None` for Fly.io.
    pub via: Option<String>,
    pub directory: Option<String>,
}

impl Server {
    /// The lines of `db.toml` for it. Commands read `fly.toml` themselves.
    pub fn lines(&self) -> Vec<String> {
        match &self.via {
            None if self.file == "fly.toml" => {
                vec!["# app and remote-dir are those of fly.toml".to_owned()]
            }
            None => vec![setting("fly-config", &self.file)],
            Some(via) => {
                let mut lines = vec![setting("via", via)];
                lines.extend(self.directory.iter().map(|dir| setting("remote-dir", dir)));
                lines
            }
        }
    }

    /// The flags that choose it.
    pub fn flags(&self) -> String {
        let (kind, name) = match (&self.via, &self.app) {
            (Some(via), _) => ("--via", via),
            (None, Some(app)) => ("--app", app),
            (None, None) => return "--app APP".to_owned(),
        };
        let dir = self.directory.iter().map(|dir| format!(" --remote-dir {dir}"));
        format!("{kind} {name}{}", dir.collect::<String>())
    }

    /// What the file says, on one line.
    pub fn describe(&self) -> String {
        let mut text = match (&self.via, &self.app) {
            (Some(via), _) => via.clone(),
            (None, Some(app)) => format!("app {app}"),
            (None, None) => "no app".to_owned(),
        };
        if let Some(directory) = &self.directory {
            text += &format!(", volume at {directory}");
        }
        text
    }
}

/// What is found, Fly.io first. A file that cannot be read says nothing.
pub fn find(root: &Path) -> Vec<Server> {
    let names = files::below(root, 1);
    let fly = names.iter().filter(|name| is_fly(base(name)));
    let mut found: Vec<_> = fly.filter_map(|name| fly_config(root, name)).collect();
    for name in names.iter().filter(|name| is_compose(base(name))) {
        found.extend(compose(root, name));
    }
    found
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn is_fly(name: &str) -> bool {
    name.starts_with("fly.") && (name.ends_with(".toml") || name.ends_with(".json"))
}

fn is_compose(name: &str) -> bool {
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
    stem.is_some_and(|stem| {
        ["compose", "docker-compose"]
            .iter()
            .any(|it| stem == *it || stem.strip_prefix(it).is_some_and(|end| end.starts_with('.')))
    })
}

fn fly_config(root: &Path, name: &str) -> Option<Server> {
    let config = FlyConfig::read(root, Some(Path::new(name))).ok()?;
    let app = config.app.clone();
    let directory = config.destination();
    Some(Server { file: name.to_owned(), app, via: None, directory })
}

/// The services that keep something in a volume. Where the source itself is mounted is no
/// production.
fn compose(root: &Path, name: &str) -> Vec<Server> {
    let text = files::read(root, name).unwrap_or_default();
    let Ok(documents) = YamlLoader::load_from_str(&text) else { return Vec::new() };
    let services = documents.first().map(|document| &document["services"]);
    let Some(services) = services.and_then(Yaml::as_hash) else { return Vec::new() };
    let project = project(root, documents.first());
    let server = |(service, settings): (&Yaml, &Yaml)| {
        let service = service.as_str()?;
        let volumes = settings["volumes"].as_vec()?;
        let directory = volumes.iter().find_map(destination)?;
        let container = settings["container_name"].as_str().map(str::to_owned);
        let container = container.unwrap_or_else(|| format!("{project}-{service}-1"));
        Some(Server {
            file: name.to_owned(),
            app: None,
            via: Some(format!("docker:{container}")),
            directory: Some(directory),
        })
    };
    // An image of others is a proxy, or keeps other data.
    let is_built = |(_, settings): &(&Yaml, &Yaml)| !settings["build"].is_badvalue();
    let any_built = services.iter().any(|one| is_built(&one));
    services.iter().filter(|one| !any_built || is_built(one)).filter_map(server).collect()
}

/// What Compose calls the project: the name of its directory, unless the file says another.
fn project(root: &Path, document: Option<&Yaml>) -> String {
    let named = document.and_then(|document| document["name"].as_str());
    let directory = || root.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = named.map(str::to_owned).or_else(directory).unwrap_or_default().to_lowercase();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
}

/// The directory in the container, of `SOURCE:DESTINATION[:OPTIONS]` or of `target:`.
fn destination(volume: &Yaml) -> Option<String> {
    let (source, target) = match volume.as_str() {
        Some(text) => {
            let mut parts = text.split(':');
            (parts.next()?, parts.next()?)
        }
        None => (volume["source"].as_str().unwrap_or_default(), volume["target"].as_str()?),
    };
    let is_source = matches!(source, "." | "./" | "..");
    let is_file = base(target).contains('.');
    (target.starts_with('/') && !is_source && !is_file).then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_say_where_production_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("My App");
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("fly.toml", "app = 'upflow'\n[mounts]\nsource = 'v'\ndestination = '/data'\n");
        write("web/fly.staging.toml", "app = 'stage'\n");
        write("node_modules/x/fly.toml", "app = 'other'\n");
        write("fly.broken.toml", "app = \n");
        write(
            "compose.yaml",
            "x-base: &base\n  image: app\nservices:\n  web:\n    <<: *base\n    volumes: ['.:/src', 'db:/app/data:rw']\n\
             \x20 worker:\n    container_name: jobs\n    volumes:\n      - type: volume\n        source: db\n        target: /var/lib/jobs\n\
             \x20 proxy:\n    volumes: ['./nginx.conf:/etc/nginx/nginx.conf']\n  redis: {image: redis}\n",
        );
        write("docker-compose.prod.yml", "services: [\n");
        let found: Vec<_> =
            find(&root).iter().map(|one| format!("{}: {}", one.file, one.describe())).collect();
        assert_eq!(
            found,
            [
                "fly.toml: app upflow, volume at /data",
                "web/fly.staging.toml: app stage",
                "compose.yaml: docker:myapp-web-1, volume at /app/data",
                "compose.yaml: docker:jobs, volume at /var/lib/jobs",
            ]
        );
    }
}
