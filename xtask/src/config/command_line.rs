//! A command of the settings. No shell runs it.

use std::fmt;

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

use super::values::plain;
use crate::error::Failure;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// The program and its arguments.
    pub words: Vec<String>,
}

impl CommandLine {
    /// Reads a command. As in a shell, variables may stand before the program.
    ///
    /// # Errors
    ///
    /// There is no program, or [`words`] fails.
    pub fn parse(command: &str) -> Result<Self> {
        let mut words = words(command)?;
        let mut env = Vec::new();
        while let Some((name, value)) = words.first().and_then(|word| word.split_once('='))
            && is_variable(name)
        {
            env.push((name.to_owned(), value.to_owned()));
            words.remove(0);
        }
        if words.is_empty() {
            return Err(Failure::usage(format!("the command {command:?} has no program"))
                .hint("write it after the variables, such as \"A=b npm run migrate\"")
                .into());
        }
        Ok(Self { env, words })
    }

    /// The command with a value in place of each `placeholder`. A value never becomes two words.
    pub fn with(&self, placeholder: &str, value: &str) -> Self {
        let replaced = |text: &String| text.replace(placeholder, value);
        let env = self.env.iter().map(|(name, value)| (name.clone(), replaced(value)));
        Self { env: env.collect(), words: self.words.iter().map(replaced).collect() }
    }

    /// Whether a value is `text`, or contains it.
    pub fn contains(&self, text: &str) -> bool {
        let values = self.env.iter().map(|(_, value)| value);
        values.chain(&self.words).any(|value| value.contains(text))
    }

    /// The name of the program.
    pub fn program(&self) -> &str {
        &self.words[0]
    }

    /// The command, to be run.
    pub fn command<'a>(&self, sh: &'a Shell) -> Cmd<'a> {
        let (program, args) = (&self.words[0], &self.words[1..]);
        cmd!(sh, "{program} {args...}").envs(self.env.iter().map(|(name, value)| (name, value)))
    }
}

/// As in the settings.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        f.write_str(&env.chain(self.words.iter().cloned()).collect::<Vec<_>>().join(" "))
    }
}

pub fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Splits a command into words.
///
/// # Errors
///
/// The command is empty, has an open quote or a control character, or needs a shell.
pub fn words(command: &str) -> Result<Vec<String>> {
    plain("the command", command)?;
    let words = shlex::split(command).filter(|words| !words.is_empty()).ok_or_else(|| {
        Failure::usage(format!("the command {command:?} is empty or has an open quote"))
            .hint("write it as in a shell, such as \"npm run migrate\"")
    })?;
    if let Some(word) = words.iter().find(|word| is_of_shell(word)) {
        let what = format!("the command {command:?} has {word}, and no shell runs it");
        return Err(Failure::usage(what).hint("sh -c '…' runs it in one").into());
    }
    Ok(words)
}

/// `a=$HOME` too, but no password hash such as `$2a$…`.
fn is_of_shell(word: &str) -> bool {
    let begins = |text: &str| {
        text.strip_prefix('$')
            .is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '{'))
    };
    ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1"].contains(&word)
        || begins(word)
        || word.split_once('=').is_some_and(|(_, value)| begins(value))
}
