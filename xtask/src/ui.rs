//! The only module that prints. Data goes to standard output, everything else to standard error;
//! without a terminal nothing prompts. All text is escaped here, because paths, names and settings
//! are untrusted.

use std::cell::Cell;
use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle, WeakProgressBar};
use inquire::error::InquireResult;
use inquire::ui::RenderConfig;
use inquire::validator::ValueRequiredValidator;
use inquire::{InquireError, set_global_render_config};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Serialize;

use crate::error::{Failure, Reason};
use crate::interrupt;
use crate::invocation::{adapt, adapt_hint};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Shows the cursor, starts a new line and clears below it.
const LEAVE_PROMPT: &str = "\x1b[?25h\r\n\x1b[J";

/// The rows of a list that are on the screen at once.
const PAGE: usize = 12;
const SAVE_CURSOR: &str = "\x1b7";
/// Back to where the cursor was saved; what is below is cleared.
const CLEAR_TO_SAVED: &str = "\x1b[?25h\x1b8\x1b[J";

/// The version of what `--json` prints, of all commands. It changes when a key is removed, or
/// means something else; keys may be added.
pub const JSON_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a, T> {
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

pub struct Ui {
    quiet: bool,
    verbose: bool,
    pub json: bool,
    pub yes: bool,
    terminal: bool,
}

impl Ui {
    pub fn new(quiet: bool, verbose: bool, json: bool, yes: bool) -> Self {
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        // Of itself a prompt knows NO_COLOR, and no TERM=dumb.
        if AutoStream::choice(&io::stderr()) == ColorChoice::Never {
            set_global_render_config(RenderConfig::empty());
        }
        Self { quiet, verbose, json, yes, terminal }
    }

    /// Whether a user can answer a question.
    pub fn interactive(&self) -> bool {
        self.terminal && !self.json
    }

    /// A status line in the style of Cargo: a verb and its object.
    pub fn status(&self, verb: &str, message: impl Display) {
        if !self.quiet {
            line(&format!("{GOOD}{verb:>12}{GOOD:#} {}", escape(&adapt(&message.to_string()))));
        }
    }

    /// A line of a list of what is right.
    pub fn tick(&self, message: impl Display) {
        if !self.quiet {
            let sign = if has_unicode() { "✓" } else { "ok" };
            line(&format!("{GOOD}{sign:>2}{GOOD:#} {}", escape(&adapt(&message.to_string()))));
        }
    }

    /// A line below another.
    pub fn line(&self, message: impl Display) {
        if !self.quiet {
            line(&escape(&adapt(&message.to_string())));
        }
    }

    /// Lines of a file that are taken from it, and added to it.
    pub fn changed(&self, file: impl Display, removed: &str, added: &str) {
        if !self.quiet {
            line(&escape(&file.to_string()));
            for (style, sign, lines) in [(ERROR, '-', removed), (GOOD, '+', added)] {
                for one in lines.lines() {
                    line(&format!("{style}{sign}{style:#} {}", escape(one)));
                }
            }
        }
    }

    /// A line that only `--verbose` shows.
    pub fn verbose(&self, message: impl Display) {
        self.echo().line(&message.to_string());
    }

    /// Prints output of another program, from the thread that reads it.
    pub fn echo(&self) -> Echo {
        Echo(self.verbose)
    }

    pub fn warn(&self, message: impl Display) {
        line(&format!("{WARNING}warning{WARNING:#}: {}", escape(&adapt(&message.to_string()))));
    }

    pub fn hint(&self, message: impl Display) {
        if !self.quiet {
            line(&format!("{HINT}hint{HINT:#}: {}", escape(&adapt_hint(&message.to_string()))));
        }
    }

    /// Prints the error, its causes and its hint.
    pub fn error(error: &anyhow::Error) {
        if crate::error::reason(error) == &Reason::Cancelled {
            return line(&escape(&error.to_string()));
        }
        let mut text = String::new();
        for (i, message) in crate::error::chain(error).iter().enumerate() {
            let message = escape(&adapt(message));
            if i == 0 {
                text += &format!("{ERROR}error{ERROR:#}: {message}");
            } else {
                text += &format!("\n  caused by: {}", message.replace('\n', "\n    "));
            }
        }
        for hint in crate::error::hints(error) {
            text += &format!("\n{HINT}hint{HINT:#}: {}", escape(&adapt_hint(hint)));
        }
        line(&text);
    }

    /// Prints clap's help or error and exits. Colours are only used if no argument contains escape
    /// sequences.
    pub fn end_of_parsing(error: &clap::Error) -> ! {
        let is_harmless =
            |arg: std::ffi::OsString| arg.to_string_lossy() == escape(&arg.to_string_lossy());
        if std::env::args_os().all(is_harmless) {
            error.exit();
        }
        line(escape(&error.render().to_string()).trim_end());
        std::process::exit(error.exit_code());
    }

    /// Prints data to standard output. A closed pipe is not an error: the command itself succeeded.
    pub fn data(&self, text: impl Display) -> Result<()> {
        print_data(&escape(&text.to_string()))
    }

    /// Standard output for large data; flush it. The text must already be escaped.
    pub fn stream(&self) -> impl io::Write {
        io::BufWriter::new(io::stdout().lock())
    }

    /// Prints data as JSON to standard output, with the version of all such output.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let document = Document { version: JSON_VERSION, content: value };
        self.data(escape_as(&serde_json::to_string_pretty(&document)?, json_escape))
    }

    /// Prints a line of a list of checks to standard output, with its mark in colour.
    pub fn check(&self, mark: Mark, message: &str, fix: Option<&str>) -> Result<()> {
        let unicode = has_unicode();
        let (style, sign) = match mark {
            Mark::Good => (GOOD, if unicode { "✓" } else { "ok" }),
            Mark::Warning => (WARNING, if unicode { "⚠" } else { "!" }),
            Mark::Bad => (ERROR, if unicode { "✗" } else { "x" }),
            Mark::None => (Style::new(), "-"),
        };
        let indented = |text: &str| escape(text).trim_end().replace('\n', "\n   ");
        let mut line = format!("{style}{sign:>2}{style:#} {}", indented(&adapt(message)));
        if let Some(fix) = fix {
            let arrow = if unicode { "→" } else { "->" };
            line += &format!(" {HINT}{arrow}{HINT:#} {}", indented(&adapt_hint(fix)));
        }
        print_data(&line)
    }

    /// Fails if a question could not be answered.
    ///
    /// # Errors
    ///
    /// There is no terminal, and no `--yes`.
    pub fn require_answers(&self) -> Result<()> {
        if self.yes || self.interactive() {
            return Ok(());
        }
        let why = if self.json { "--json does not ask" } else { "there is no terminal" };
        Err(Failure::usage(format!("this needs a confirmation, and {why}"))
            .hint("add --yes")
            .into())
    }

    /// Prints a line of JSON that is printed piece by piece: a value, between two texts.
    pub fn json_part(&self, before: &str, value: &impl Serialize, after: &str) -> Result<()> {
        let value = escape_as(&serde_json::to_string(value)?, json_escape);
        self.data(format!("{before}{value}{after}"))
    }

    /// Asks a yes-or-no question; `--yes` answers it.
    ///
    /// # Errors
    ///
    /// The user declined, or there is no terminal.
    pub fn confirm(&self, question: &str) -> Result<()> {
        self.require_answers()?;
        match self.offer(question)? {
            true => Ok(()),
            false => Err(Failure::cancelled().into()),
        }
    }

    /// Asks on a terminal whether to do something that can be left out; `--yes` answers it.
    ///
    /// # Errors
    ///
    /// The user interrupted the question.
    pub fn offer(&self, question: &str) -> Result<bool> {
        if self.yes {
            return Ok(true);
        }
        let question = escape(question);
        ask(move || inquire::Confirm::new(&question).with_default(false).prompt())?
            .map_err(unanswered)
    }

    /// Asks whether to do what is most often wanted; without a terminal it is done.
    ///
    /// # Errors
    ///
    /// The user interrupted the question.
    pub fn accept(&self, question: &str) -> Result<bool> {
        if self.yes || !self.interactive() {
            return Ok(true);
        }
        let question = escape(question);
        ask(move || inquire::Confirm::new(&question).with_default(true).prompt())?
            .map_err(unanswered)
    }

    /// Asks for a text; `--yes` takes `default`, which is empty if there is none.
    ///
    /// # Errors
    ///
    /// The user interrupted the question, or there is nobody to answer it, and no default.
    pub fn text(&self, question: &str, default: &str, flag: &str) -> Result<String> {
        if (self.yes && !default.is_empty()) || !self.interactive() && !default.is_empty() {
            return Ok(default.to_owned());
        }
        if !self.interactive() {
            return Err(Failure::usage(format!("nobody can answer: {question}"))
                .hint(format!("give {flag}"))
                .into());
        }
        let (question, default) = (escape(question), default.to_owned());
        ask(move || {
            let text = inquire::Text::new(&question);
            if default.is_empty() {
                text.with_validator(ValueRequiredValidator::new("an answer is needed")).prompt()
            } else {
                text.with_default(&default).prompt()
            }
        })?
        .map_err(unanswered)
    }

    /// Lets the user select one of `options`; returns its index.
    ///
    /// # Errors
    ///
    /// The user selected nothing.
    pub fn select(&self, question: &str, options: Vec<String>) -> Result<usize> {
        let plain = |text: String| Choice { answer: text.clone(), found_by: String::new(), text };
        self.pick(question, options.into_iter().map(plain).collect(), 0)
    }

    /// Lets the user select one of `choices`, first that at `start`; returns its index.
    ///
    /// # Errors
    ///
    /// The user selected nothing: then nothing of the list stays on the screen.
    pub fn pick(&self, question: &str, choices: Vec<Choice>, start: usize) -> Result<usize> {
        let (question, n) = (escape(question), choices.len());
        let choices: Vec<_> = choices.into_iter().map(Choice::escaped).collect();
        // The prompt, the choices, the help, and the line after.
        let lines = n.min(PAGE) + 3;
        loop {
            let up = "\n".repeat(lines);
            let _ = write!(io::stderr(), "{up}\x1b[{lines}A{SAVE_CURSOR}");
            let (question, choices) = (question.clone(), choices.clone());
            let answer = ask(move || select_one(&question, choices, start))?;
            match answer {
                Ok(index) if index < n => return Ok(index),
                unanswered => {
                    let _ = write!(io::stderr(), "{CLEAR_TO_SAVED}");
                    unanswered.map_err(self::unanswered)?;
                }
            }
        }
    }

    /// The columns of the terminal to which data is printed.
    pub fn columns(&self) -> Option<usize> {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok())?;
        Some(size.map_or(0, |size| usize::from(size.ws_col))).map(|n| if n == 0 { 80 } else { n })
    }

    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Prints a row of a table to standard output: a mark, columns, and a note, which may be a
    /// warning.
    pub fn row(&self, mark: &str, columns: &str, note: &str, is_warning: bool) -> Result<()> {
        let style = if is_warning { WARNING } else { Style::new() };
        let (mark, columns) = (escape(mark), escape(columns));
        let row = format!("{GOOD}{mark}{GOOD:#}{columns}{style}{}{style:#}", escape(note));
        print_data(row.trim_end())
    }

    /// Whether the terminal has no room for long lines.
    pub fn is_narrow(&self) -> bool {
        self.terminal && columns() < NARROW
    }

    /// Whether lines can be drawn over. Where not, each step is a plain line.
    fn draws(&self) -> bool {
        self.interactive() && !self.quiet && !ProgressBar::no_length().is_hidden()
    }

    /// Progress towards `total` bytes, of which `wire` have travelled: a bar on a terminal, else a
    /// line per file.
    pub fn progress(&self, total: u64, wire: Rc<Cell<u64>>) -> Progress<'_> {
        let bar = self.draws().then(|| {
            let style = ProgressStyle::with_template(if columns() < NARROW {
                "{prefix:>12.green.bold} {percent:>3}% {wide_msg}"
            } else {
                "{prefix:>12.green.bold} [{bar:14}] {eta} left  {wide_msg}"
            });
            let style =
                style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
            let bar = ProgressBar::new(total).with_prefix("Receiving").with_style(style);
            // Redrawn while nothing is received too, so that the rate falls.
            bar.enable_steady_tick(Duration::from_millis(250));
            *last_bar() = Some(bar.downgrade());
            bar
        });
        let before = wire.get();
        Progress { ui: self, bar, wire, before, name: String::new() }
    }

    /// A spinner for a step of unknown length; without a terminal, a line.
    pub fn working(&self, verb: &'static str, message: impl Display) -> Spinner {
        self.step(verb, None, message)
    }

    /// The same for a step that is called `done` when it has ended, which stays on a terminal.
    pub fn step(
        &self,
        verb: &'static str,
        done: Option<&'static str>,
        message: impl Display,
    ) -> Spinner {
        let (started, message) = (Instant::now(), message.to_string());
        if !self.draws() {
            self.status(verb, message);
            return Spinner { bar: None, done: None, message: String::new(), started };
        }
        let bar = ProgressBar::new_spinner().with_message(escape(&message));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>12.green.bold} {msg} {spinner} {elapsed}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(verb);
        bar.enable_steady_tick(Duration::from_millis(120));
        *last_bar() = Some(bar.downgrade());
        Spinner { bar: Some(bar), done, message, started }
    }
}

/// A terminal with fewer columns has no room for a bar.
const NARROW: usize = 70;
/// What stands at the end of a line, stands here.
const END: usize = 80;

/// The width of the terminal.
fn columns() -> usize {
    tcgetwinsize(io::stderr()).map_or(END, |size| usize::from(size.ws_col))
}

/// A row of a list to select from.
#[derive(Clone)]
pub struct Choice {
    pub text: String,
    /// What stays on the screen once it is selected.
    pub answer: String,
    /// What a user may type to find it, beside its text.
    pub found_by: String,
}

impl Choice {
    fn escaped(self) -> Self {
        let Self { text, answer, found_by } = self;
        Self { text: escape(&text), answer: escape(&answer), found_by }
    }
}

impl Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Asks for one of `choices`; returns their number if none matches what the user has typed.
fn select_one(question: &str, mut choices: Vec<Choice>, start: usize) -> InquireResult<usize> {
    let searched: Vec<_> =
        choices.iter().map(|it| format!("{}\n{}", it.text, it.found_by).to_lowercase()).collect();
    let none = "nothing matches: change what you typed";
    choices.push(Choice {
        text: none.to_owned(),
        answer: none.to_owned(),
        found_by: String::new(),
    });
    let score = |typed: &str, _: &Choice, _: &str, index: usize| {
        let typed = typed.to_lowercase();
        let matches = match searched.get(index) {
            Some(text) => text.contains(&typed),
            None => !searched.iter().any(|text| text.contains(&typed)),
        };
        matches.then_some(0)
    };
    inquire::Select::new(question, choices)
        .with_page_size(PAGE)
        .with_starting_cursor(start)
        // Otherwise the first row is selected at once: the last choice is not shown.
        .with_reset_cursor(false)
        .with_scorer(&score)
        // The order stays.
        .with_sorter(&|_| ())
        .with_formatter(&|choice| choice.value.answer.clone())
        .with_help_message("↑↓ · type to filter · enter · esc")
        .raw_prompt()
        .map(|choice| choice.index)
}

/// What a check of a list found.
#[derive(Clone, Copy)]
pub enum Mark {
    Good,
    Warning,
    Bad,
    /// It was not made.
    None,
}

/// Whether the terminal shows more than ASCII, as far as the locale tells.
pub fn has_unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_some_and(|locale| locale.to_lowercase().replace('-', "").contains("utf8"))
}

/// Writes escaped text to standard output.
fn print_data(text: &str) -> Result<()> {
    match beside_bar(|| writeln!(anstream::stdout(), "{text}")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

pub struct Echo(bool);

impl Echo {
    pub fn line(&self, said: &str) {
        if self.0 {
            line(&format!("{:>12} {}", "", escape(said)));
        }
    }
}

/// Asks the user. Meanwhile Ctrl-C is a key press, but a signal may still arrive, and the terminal
/// must then be restored.
fn ask<T: Send + 'static>(
    prompt: impl FnOnce() -> InquireResult<T> + Send + 'static,
) -> Result<InquireResult<T>> {
    let modes = tcgetattr(io::stdin());
    let answer = interrupt::beside(prompt);
    if let (Err(_), Ok(modes)) = (&answer, modes) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        let _ = write!(io::stderr(), "{LEAVE_PROMPT}");
    }
    answer
}

fn unanswered(error: InquireError) -> anyhow::Error {
    match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => {
            Failure::cancelled().into()
        }
        error => error.into(),
    }
}

pub struct Progress<'a> {
    ui: &'a Ui,
    bar: Option<ProgressBar>,
    wire: Rc<Cell<u64>>,
    /// What had travelled before.
    before: u64,
    /// The current file.
    name: String,
}

impl Progress<'_> {
    /// Starts the next file; without a bar, prints a line with `action`.
    pub fn file(&mut self, action: &str, name: &str, size: u64) {
        self.name = escape(name);
        match &self.bar {
            Some(_) => self.advance(0),
            None => self.ui.status(action, format!("{} ({})", self.name, bytes(size))),
        }
    }

    /// Counts bytes of the file, of which fewer have travelled.
    pub fn advance(&self, n: u64) {
        let Some(bar) = &self.bar else { return };
        bar.inc(n);
        let sent = self.wire.get() - self.before;
        let rate = sent as f64 / bar.elapsed().as_secs_f64().max(0.1);
        bar.set_message(format!("{}, {}/s · {}", bytes(sent), bytes(rate as u64), self.name));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How often a step says how far it is.
const NOTE: Duration = Duration::from_millis(200);

/// Removed from the screen when dropped.
pub struct Spinner {
    bar: Option<ProgressBar>,
    done: Option<&'static str>,
    message: String,
    started: Instant,
}

impl Spinner {
    /// How far the step is, beside what it is.
    pub fn note(&self, far: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(escape(&format!("{}: {far}", self.message)));
        }
    }

    /// Says from time to time how far the step is, while `work` runs.
    pub fn during<T>(&self, far: impl Fn() -> String + Sync, work: impl FnOnce() -> T) -> T {
        if self.bar.is_none() {
            return work();
        }
        // Its end is that of the other side, also if `work` panics.
        let (working, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let ended = ended;
                while ended.recv_timeout(NOTE) == Err(RecvTimeoutError::Timeout) {
                    self.note(far());
                }
            });
            let _working = working;
            work()
        })
    }

    /// The step has ended: its line stays, with the time that it took.
    pub fn finish(self) {
        let Some((bar, done)) = self.bar.as_ref().zip(self.done) else { return };
        bar.finish_and_clear();
        let verb = format!("{} {done}", if has_unicode() { "✓" } else { "ok" });
        let (text, took) = (escape(&self.message), self.started.elapsed().as_secs_f64());
        let used = 13 + text.chars().count();
        let space = END.min(columns()).saturating_sub(used + 6).max(1);
        line(&format!("{GOOD}{verb:>12}{GOOD:#} {text}{:space$}{took:>4.1} s", ""));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A closed standard error must not turn a successful pull into a failure.
fn line(text: &str) {
    let _ = beside_bar(|| writeln!(anstream::stderr(), "{text}"));
}

/// The bar or spinner that was shown last.
fn last_bar() -> MutexGuard<'static, Option<WeakProgressBar>> {
    static LAST: Mutex<Option<WeakProgressBar>> = Mutex::new(None);
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line; the bar is hidden meanwhile, and redrawn below it.
fn beside_bar<T>(write: impl FnOnce() -> T) -> T {
    let bar = last_bar().as_ref().and_then(WeakProgressBar::upgrade);
    match bar.filter(|bar| !bar.is_finished()) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// The last lines of another program's output, escaped and indented.
pub fn quoted(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(6)..];
    last.iter().map(|line| format!("\n  | {}", escape(line))).collect()
}

/// Escapes untrusted text for a terminal: control, invisible and direction-changing characters
/// become visible.
pub fn escape(text: &str) -> String {
    escape_as(text, |out, c| write!(out, "{}", c.escape_unicode()))
}

/// Untrusted text as part of a line: without this, a newline in it would begin a line that looks like
/// one of ours.
pub fn on_one_line(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

fn escape_as(text: &str, escaped: fn(&mut String, char) -> fmt::Result) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if c != '\n' && (c.is_control() || hidden) {
            // Writing to a string does not fail.
            let _ = escaped(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON has such characters only in strings, with an escape of its own for them.
fn json_escape(out: &mut String, c: char) -> fmt::Result {
    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

/// A directory as one types it in the current one.
pub fn from_here(dir: &Path) -> String {
    let here = std::env::current_dir().ok();
    match here.and_then(|here| Some(dir.strip_prefix(here).ok()?.to_owned())) {
        Some(below) if !below.as_os_str().is_empty() => format!("./{}", below.display()),
        _ => dir.display().to_string(),
    }
}

/// A path as one types it in the repository at `root`, if it is in there.
pub fn from_root(root: &Path, path: &Path) -> String {
    match path.strip_prefix(root) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

/// 1,234,567 bytes as `1.2 MB` (powers of 1000).
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration in the past, in its largest unit: `3 h ago`.
pub fn age(seconds: i64) -> String {
    let (n, unit) = match seconds {
        ..0 => return "in the future".to_owned(),
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "min"),
        3600..86_400 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{n} {unit} ago")
}

/// The columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Whatever is not of a script whose characters surely take one column counts as two.
fn char_width(c: char) -> usize {
    if c < '\u{1100}' || ('\u{2000}'..'\u{2e80}').contains(&c) { 1 } else { 2 }
}

/// A text that takes at most so many columns.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let fits = char_width(*c) <= left;
        left = left.saturating_sub(char_width(*c));
        fits
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// `1 database`, `3 databases`.
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The first names, and how many more there are.
pub fn several(names: &[String], shown: usize) -> String {
    let first = names[..names.len().min(shown)].join(", ");
    match names.len().saturating_sub(shown) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(
            escape("a\x1b]52;c;x\x07b\u{202e}c\rd"),
            "a\\u{1b}]52;c;x\\u{7}b\\u{202e}c\\u{d}d"
        );
        assert_eq!(escape("données 東京 🦀"), "données 東京 🦀");
        let text = "\x1b \u{9b} \u{202e} \u{e0041} é\n";
        let json = escape_as(&serde_json::to_string(text).unwrap(), json_escape);
        assert_eq!(json, r#""\u001b \u009b \u202e \udb40\udc41 é\n""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_text_is_cut_to_the_columns_of_a_terminal() {
        assert_eq!(["abc", "abcd", "東京都"].map(|text| cut(text, 3)), ["abc", "ab…", "東…"]);
        assert_eq!(cut("東京都", 2), "…");
    }

    #[test]
    fn sizes_and_ages_read_well() {
        let sizes = [0, 999, 1000, 1_234_567, 999_999, 5_000_000_000].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.2 MB", "1.0 MB", "5.0 GB"]);
        let ages = [-5, 3, 60, 7200, 86_400 * 3].map(age);
        assert_eq!(ages, ["in the future", "just now", "1 min ago", "2 h ago", "3 d ago"]);
    }
}
