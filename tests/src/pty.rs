//! A program on a real terminal, with the screen that its user sees.

use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use vt100::{Callbacks, Parser, Screen};

use crate::process::DEADLINE;

pub const ENTER: &str = "\r";
pub const UP: &str = "\x1b[A";
pub const DOWN: &str = "\x1b[B";
pub const ESC: &str = "\x1b";
pub const SPACE: &str = " ";
pub const CTRL_C: &str = "\x03";

/// Sent by a program to query the position of the cursor.
const CURSOR_QUERY: &[u8] = b"\x1b[6n";

/// Runs `$@`, and writes its exit code to the screen last. It leads the session and stays alive:
/// when a leader ends, Linux discards output that was not read yet.
const LEADER: &str = r#"trap : INT QUIT; "$@"; printf '\033]exit;%s\007' $?; exec cat >/dev/null"#;

/// The characters of a line that have one style, from a column on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub column: u16,
    pub text: String,
    /// One of the terminal's sixteen.
    pub color: Option<u8>,
    pub bold: bool,
}

pub type Line = Vec<Run>;

impl Run {
    fn trim(&mut self) {
        let before = self.text.len() - self.text.trim_start().len();
        self.column += u16::try_from(before).expect("a line is short");
        self.text = self.text.trim().to_owned();
    }
}

type Keyboard = Arc<Mutex<Box<dyn Write + Send>>>;
type Terminal = Parser<Ended>;

/// The exit code of the program, after its end.
#[derive(Default)]
struct Ended(Option<u32>);

impl Callbacks for Ended {
    fn unhandled_osc(&mut self, _: &mut Screen, params: &[&[u8]]) {
        if let [b"exit", code] = params {
            self.0 = str::from_utf8(code).ok().and_then(|code| code.parse().ok());
        }
    }
}

pub struct Session {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Keyboard,
    terminal: Arc<Mutex<Terminal>>,
    /// Kept open, because dropping it hangs up the terminal.
    master: Box<dyn MasterPty + Send>,
}

impl Session {
    /// Starts a command, with its own environment, directory and arguments, on a terminal of 100
    /// columns and 30 lines.
    #[track_caller]
    pub fn spawn(command: &Command) -> Session {
        Session::spawn_sized(command, 30, 100)
    }

    /// For lines with a path: on a wide terminal, they do not wrap.
    #[track_caller]
    pub fn spawn_sized(command: &Command, rows: u16, cols: u16) -> Session {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("open a pty");
        let child = pair.slave.spawn_command(translate(command)).expect("start on the pty");
        // An open slave would keep the end of file from arriving.
        drop(pair.slave);
        let reader = pair.master.try_clone_reader().expect("the pty can be read");
        let keyboard = pair.master.take_writer().expect("the pty can be written");
        let keyboard: Keyboard = Arc::new(Mutex::new(keyboard));
        let (rows, cols) = (positive(size.rows), positive(size.cols));
        let terminal = Parser::new_with_callbacks(rows, cols, 1000, Ended::default());
        let terminal = Arc::new(Mutex::new(terminal));
        let (shown, answers) = (Arc::clone(&terminal), Arc::clone(&keyboard));
        thread::spawn(move || show(reader, &shown, &answers));
        Session { child, keyboard, terminal, master: pair.master }
    }

    /// Types these keys; see the constants.
    #[track_caller]
    pub fn send(&self, keys: &str) {
        let mut keyboard = self.keyboard.lock().expect("nobody panics with the keyboard");
        keyboard.write_all(keys.as_bytes()).expect("the program reads its keyboard");
        keyboard.flush().expect("the program reads its keyboard");
    }

    pub fn shows_cursor(&self) -> bool {
        !self.terminal().screen().hide_cursor()
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        self.master.resize(size).expect("a pty can be resized");
        self.terminal().screen_mut().set_size(positive(rows), positive(cols));
    }

    /// The text on the screen, without trailing blanks.
    pub fn screen(&self) -> String {
        self.terminal().screen().contents()
    }

    /// The lines of the screen, with their colours.
    pub fn lines(&self) -> Vec<Line> {
        let terminal = self.terminal();
        let screen = terminal.screen();
        let (rows, cols) = screen.size();
        let line = |row| {
            let mut line: Line = Vec::new();
            for column in 0..cols.get() {
                let Some(cell) = screen.cell(row, column) else { continue };
                let text = if cell.has_contents() { cell.contents() } else { " " };
                let color = match cell.fgcolor() {
                    vt100::Color::Idx(color) => Some(color),
                    _ if cell.dim() => Some(8),
                    _ => None,
                };
                match line.last_mut() {
                    Some(run) if (run.color, run.bold) == (color, cell.bold()) => run.text += text,
                    _ => line.push(Run { column, text: text.to_owned(), color, bold: cell.bold() }),
                }
            }
            line.iter_mut().for_each(Run::trim);
            line.retain(|run| !run.text.is_empty());
            line
        };
        (0..rows.get()).map(line).collect()
    }

    /// Whether a character on the screen has a colour, or is bold or underlined.
    pub fn has_colors(&self) -> bool {
        let terminal = self.terminal();
        let screen = terminal.screen();
        let (rows, cols) = screen.size();
        let cells = (0..rows.get()).flat_map(|row| (0..cols.get()).map(move |col| (row, col)));
        let mut cells = cells.filter_map(|(row, col)| screen.cell(row, col));
        let plain = vt100::Color::Default;
        cells.any(|cell| cell.fgcolor() != plain || cell.bold() || cell.underline())
    }

    fn terminal(&self) -> MutexGuard<'_, Terminal> {
        self.terminal.lock().expect("nobody panics with the screen")
    }

    #[track_caller]
    pub fn wait_for(&self, mut shows: impl FnMut(&str) -> bool, what: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if shows(&screen) {
                return screen;
            }
            if start.elapsed() > DEADLINE {
                panic!("waited in vain for {what}; the screen:\n{screen}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(|screen| screen.contains(text), &format!("{text:?}"))
    }

    /// The exit code of the program, or 128 plus the signal. All its output is on the screen.
    #[track_caller]
    pub fn wait_exit(&self) -> u32 {
        let mut code = None;
        self.wait_for(
            |_| {
                code = self.terminal().callbacks().0;
                code.is_some()
            },
            "its end",
        );
        code.expect("it has ended")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn positive(size: u16) -> NonZero<u16> {
    NonZero::new(size).expect("a screen has a size")
}

fn show(mut from: Box<dyn Read + Send>, terminal: &Mutex<Terminal>, answers: &Keyboard) {
    let mut buffer = vec![0; 16 * 1024];
    // On Linux, the read fails when the other side is closed.
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..read];
        let (row, column) = {
            let mut terminal = terminal.lock().expect("nobody panics with the screen");
            terminal.process(bytes);
            terminal.screen().cursor_position()
        };
        if bytes.windows(CURSOR_QUERY.len()).any(|window| window == CURSOR_QUERY) {
            let mut keyboard = answers.lock().expect("nobody panics with the keyboard");
            // The program may have ended meanwhile.
            drop(write!(keyboard, "\x1b[{};{}R", row + 1, column + 1));
            drop(keyboard.flush());
        }
    }
}

/// Copies the environment of the command. Nothing is inherited, and the leader, which is not a
/// process of the test, has none.
fn translate(command: &Command) -> CommandBuilder {
    let mut builder = CommandBuilder::new("/bin/sh");
    builder.env_clear();
    builder.args(["-c", LEADER, "sh", "/usr/bin/env", "-i", "TERM=xterm-256color"]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let mut variable = name.to_owned();
            variable.push("=");
            variable.push(value);
            builder.arg(variable);
        }
    }
    builder.arg(command.get_program());
    builder.args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        builder.cwd(directory);
    }
    builder
}
