//! A program on a real terminal, seen as its user sees it: the screen.

use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use vt100::Parser;

use crate::process::DEADLINE;

pub const ENTER: &str = "\r";
pub const UP: &str = "\x1b[A";
pub const DOWN: &str = "\x1b[B";
pub const ESC: &str = "\x1b";
pub const SPACE: &str = " ";
pub const CTRL_C: &str = "\x03";

/// What a program sends to learn where the cursor is, and waits for an answer.
const CURSOR_QUERY: &[u8] = b"\x1b[6n";

type Keyboard = Arc<Mutex<Box<dyn Write + Send>>>;

pub struct Session {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Keyboard,
    screen: Arc<Mutex<Parser>>,
    /// Kept, because the terminal hangs up when it is dropped.
    master: Box<dyn MasterPty + Send>,
}

impl Session {
    /// Starts a command, with its own environment, directory and arguments, on
    /// a terminal of 100 columns and 30 lines.
    #[track_caller]
    pub fn spawn(command: &Command) -> Session {
        Session::spawn_sized(command, 30, 100)
    }

    /// For exact lines that hold a path: wide enough, none of them wraps.
    #[track_caller]
    pub fn spawn_sized(command: &Command, rows: u16, cols: u16) -> Session {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("open a pty");
        let child = pair.slave.spawn_command(translate(command)).expect("start on the pty");
        // Else the end of file would never come.
        drop(pair.slave);
        let reader = pair.master.try_clone_reader().expect("the pty can be read");
        let keyboard = pair.master.take_writer().expect("the pty can be written");
        let keyboard: Keyboard = Arc::new(Mutex::new(keyboard));
        let screen =
            Arc::new(Mutex::new(Parser::new(positive(size.rows), positive(size.cols), 1000)));
        let (shown, answers) = (Arc::clone(&screen), Arc::clone(&keyboard));
        thread::spawn(move || show(reader, &shown, &answers));
        Session { child, keyboard, screen, master: pair.master }
    }

    /// Types this; see the constants for keys.
    #[track_caller]
    pub fn send(&self, keys: &str) {
        let mut keyboard = self.keyboard.lock().expect("nobody panics with the keyboard");
        keyboard.write_all(keys.as_bytes()).expect("the program reads its keyboard");
        keyboard.flush().expect("the program reads its keyboard");
    }

    pub fn shows_cursor(&self) -> bool {
        !self.screen.lock().expect("nobody panics with the screen").screen().hide_cursor()
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        self.master.resize(size).expect("a pty can be resized");
        let mut screen = self.screen.lock().expect("nobody panics with the screen");
        screen.screen_mut().set_size(positive(rows), positive(cols));
    }

    /// The text on the screen, without the blanks at the ends of its lines.
    pub fn screen(&self) -> String {
        self.screen.lock().expect("nobody panics with the screen").screen().contents()
    }

    #[track_caller]
    pub fn wait_for(&self, shows: impl Fn(&str) -> bool, what: &str) -> String {
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

    #[track_caller]
    pub fn wait_exit(&mut self) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status.exit_code();
            }
            if start.elapsed() > DEADLINE {
                panic!("still running; the screen:\n{}", self.screen());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn positive(size: u16) -> NonZero<u16> {
    NonZero::new(size).expect("a screen has a size")
}

fn show(mut from: Box<dyn Read + Send>, screen: &Mutex<Parser>, answers: &Keyboard) {
    let mut buffer = vec![0; 16 * 1024];
    // The error at the end is how Linux says that the other side is closed.
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..read];
        let (row, column) = {
            let mut screen = screen.lock().expect("nobody panics with the screen");
            screen.process(bytes);
            screen.screen().cursor_position()
        };
        if bytes.windows(CURSOR_QUERY.len()).any(|window| window == CURSOR_QUERY) {
            let mut keyboard = answers.lock().expect("nobody panics with the keyboard");
            // A program that has ended in the meantime needs no answer.
            drop(write!(keyboard, "\x1b[{};{}R", row + 1, column + 1));
            drop(keyboard.flush());
        }
    }
}

fn translate(command: &Command) -> CommandBuilder {
    let mut builder = CommandBuilder::new(command.get_program());
    builder.args(command.get_args());
    // A test's command has its whole environment set; nothing is inherited.
    builder.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            builder.env(name, value);
        }
    }
    builder.env("TERM", "xterm-256color");
    if let Some(directory) = command.get_current_dir() {
        builder.cwd(directory);
    }
    builder
}
