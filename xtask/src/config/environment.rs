//! Variables in settings: `${NAME}` and `${NAME:-default}`, from the environment or a named `.env`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Failure;

/// The environment, and behind it the variables of a file.
pub struct Environment {
    /// The name of the file.
    file: Option<PathBuf>,
    variables: HashMap<String, String>,
}

impl Environment {
    /// With the variables in `file`, relative to `root`; it need not exist, as on a new machine.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has a line that is none of a `.env`.
    pub fn new(root: &Path, file: Option<PathBuf>) -> Result<Self> {
        let mut variables = HashMap::new();
        if let Some(path) = file.as_ref().map(|file| root.join(file)).filter(|path| path.is_file())
        {
            // Its error has the line, which may be a secret.
            let unreadable = |_| Failure::usage(format!("cannot read env-file {}", path.display()));
            for (number, variable) in
                dotenvy::from_path_iter(&path).map_err(unreadable)?.enumerate()
            {
                let (name, value) = variable.map_err(|_| {
                    let number = number + 1;
                    Failure::usage(format!("variable {number} in {} is malformed", path.display()))
                        .hint("a line is NAME=value or NAME=\"a value\"")
                })?;
                variables.entry(name).or_insert(value);
            }
        }
        Ok(Self { file, variables })
    }

    /// What `read` makes of a setting with variables; an error does not have their values.
    ///
    /// # Errors
    ///
    /// Those of [`Self::expand`], and of `read`.
    pub fn read<T>(
        &self,
        key: &str,
        text: &str,
        read: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let expanded = self.expand(key, text)?;
        read(&expanded).map_err(|error| match expanded == text {
            true => error,
            false => {
                let why = "with its variables it is no valid value";
                Failure::usage(format!("{key} = {text:?}: {why}")).into()
            }
        })
    }

    /// Replaces the variables in the value of a setting.
    ///
    /// # Errors
    ///
    /// A variable is not set and has no default, or its brace is not closed.
    pub fn expand(&self, key: &str, text: &str) -> Result<String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, variable)) = rest.split_once("${") {
            let Some((variable, after)) = variable.split_once('}') else {
                return Err(Failure::usage(format!("{key} = {text:?}: a brace is not closed"))
                    .hint("a variable is ${NAME}")
                    .into());
            };
            let (name, default) = match variable.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (variable, None),
            };
            expanded += before;
            expanded += &self.value(name).or(default.map(str::to_owned)).ok_or_else(|| {
                let beside = self.file.as_ref().map(|file| format!(" or in {}", file.display()));
                Failure::usage(format!("{key} = {text:?}: {name} is not set")).hint(format!(
                    "set it in the environment{}, or give a default: \"${{{name}:-data}}\"",
                    beside.unwrap_or_default()
                ))
            })?;
            rest = after;
        }
        Ok(expanded + rest)
    }

    /// An empty variable counts as not set, as after `:-` in a shell.
    fn value(&self, name: &str) -> Option<String> {
        let value = std::env::var(name).ok().or_else(|| self.variables.get(name).cloned());
        value.filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_of_the_file_or_have_a_default() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(".env"),
            "# of all\nDATA_XT=\"a b\"\nexport NONE_XT=\nP=$0\n",
        )
        .unwrap();
        let environment = Environment::new(dir.path(), Some(".env".into())).unwrap();
        let expand = |text: &str| environment.expand("local-dir", text);
        for (text, expanded) in [
            ("data", "data"),
            ("${DATA_XT}", "a b"),
            ("x/${DATA_XT}/${DATA_XT:-no}", "x/a b/a b"),
            ("${OTHER_XT:-data}", "data"),
            ("${NONE_XT:-data}/y", "data/y"),
            ("${OTHER_XT:-}", ""),
            ("$DATA_XT", "$DATA_XT"),
        ] {
            assert_eq!(expand(text).unwrap(), expanded, "{text}");
        }
        let error = expand("${OTHER_XT}").unwrap_err();
        assert_eq!(error.to_string(), "local-dir = \"${OTHER_XT}\": OTHER_XT is not set");
        assert!(crate::error::hint(&error).unwrap().contains("or in .env"));
        assert!(expand("${DATA_XT").is_err());
        assert!(Environment::new(dir.path(), Some("none".into())).unwrap().variables.is_empty());
    }

    #[test]
    fn an_invalid_value_is_not_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "SECRET_XT=hunter2\n").unwrap();
        let environment = Environment::new(dir.path(), Some(".env".into())).unwrap();
        let refuse = |value: &str| Err::<(), _>(Failure::usage(format!("not {value}")).into());
        let said = |text: &str| environment.read("via", text, refuse).unwrap_err().to_string();
        assert_eq!(
            said("${SECRET_XT}"),
            "via = \"${SECRET_XT}\": with its variables it is no valid value"
        );
        assert_eq!(said("plain"), "not plain");
    }

    #[test]
    fn a_malformed_file_is_named_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "A=1\nhunter2 hunter2\n").unwrap();
        let error = Environment::new(dir.path(), Some(".env".into())).err().unwrap();
        let said = format!("{error:#}");
        assert!(said.contains("variable 2 in ") && !said.contains("hunter2"), "{said}");
    }
}
