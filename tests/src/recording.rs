//! The recording that README shows: commands on a real terminal, as a picture that moves.

mod svg;

use std::time::Duration;

pub use self::svg::{COLUMNS, ROWS, render, words};
use crate::pty::{Line, Run, Session};

/// How long things stay, so that a person can read them.
const KEYS: Duration = Duration::from_millis(110);
const LINE: Duration = Duration::from_millis(140);
const RESULT: Duration = Duration::from_millis(2600);
/// Of a command line, so many characters appear at once.
const AT_ONCE: usize = 5;

/// What is on the screen for some time.
pub struct Frame {
    pub lines: Vec<Line>,
    pub time: Duration,
}

/// The frames of commands that run one after the other, each on a clear screen.
#[derive(Default)]
pub struct Recording {
    pub frames: Vec<Frame>,
    /// The command line that is shown.
    prompt: Line,
}

impl Recording {
    /// Types a command line.
    pub fn types(&mut self, command: &str) {
        let chars: Vec<char> = command.chars().collect();
        for end in (0..chars.len()).step_by(AT_ONCE).skip(1).chain([chars.len()]) {
            let typed: String = chars[..end].iter().collect();
            let sign = Run { column: 0, text: "$".to_owned(), color: Some(2), bold: true };
            self.prompt = vec![sign, Run { column: 2, text: typed, color: None, bold: false }];
            self.frames.push(Frame { lines: vec![self.prompt.clone()], time: KEYS });
        }
    }

    /// What a program has on its screen now, below the command line.
    pub fn shows(&mut self, session: &Session, time: Duration) {
        let lines = self.screen(session);
        self.frames.push(Frame { lines, time });
    }

    /// What a program that has ended has printed, line by line.
    pub fn prints(&mut self, session: &Session) {
        let lines = self.screen(session);
        let shown = self.frames.last().map_or(0, |frame| common(&frame.lines, &lines));
        for end in shown + 1..lines.len() {
            self.frames.push(Frame { lines: lines[..end].to_vec(), time: LINE });
        }
        self.frames.push(Frame { lines, time: RESULT });
    }

    fn screen(&self, session: &Session) -> Vec<Line> {
        let mut lines = vec![self.prompt.clone()];
        lines.extend(session.lines());
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines
    }
}

/// How many lines at the beginning are the same.
fn common(left: &[Line], right: &[Line]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}
