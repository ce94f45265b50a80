//! Rows that look like those of an app, the same at every run.

use anyhow::Result;
use rusqlite::CachedStatement;
use xtask_db::internals::random::Sequence;

pub const INSERT_DOCUMENT: &str =
    "INSERT INTO documents (key, author, title, body, created_at, updated_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
pub const UPDATE_DOCUMENT: &str = "UPDATE documents SET body = ?2, updated_at = ?3 WHERE id = ?1";
pub const INSERT_ACCOUNT: &str =
    "INSERT INTO accounts (id, email, name, phone, api_token, password_hash, address, created_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
pub const UPDATE_ACCOUNT: &str =
    "UPDATE accounts SET email = ?2, phone = ?3, api_token = ?4 WHERE id = ?1";

/// Builds text of words few of which are frequent, as in a language.
pub struct Author {
    random: Sequence,
    words: Vec<String>,
}

impl Author {
    pub fn new(seed: u64) -> Self {
        let mut author = Self { random: Sequence::new(seed), words: Vec::new() };
        const SYLLABLES: [&str; 16] = [
            "ba", "con", "de", "er", "fi", "gra", "in", "lo", "men", "no", "per", "re", "sti",
            "ta", "u", "ver",
        ];
        author.words = (0..6000)
            .map(|_| (0..=author.below(3)).map(|_| SYLLABLES[author.below(16) as usize]).collect())
            .collect();
        author
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.random.number() % n
    }

    pub fn insert_document(&mut self, insert: &mut CachedStatement<'_>, row: u64) -> Result<()> {
        let key = format!("{:016x}{:08x}", self.random.number(), self.random.number() as u32);
        let author = format!("user{}@example.com", self.below(500));
        let (title, body) = (self.text(3, 10), self.body());
        insert.execute((key, author, title, body, time(row)))?;
        Ok(())
    }

    pub fn update_document(
        &mut self,
        update: &mut CachedStatement<'_>,
        row: u64,
        at: u64,
    ) -> Result<()> {
        update.execute((row.cast_signed(), self.body(), time(at)))?;
        Ok(())
    }

    pub fn insert_account(&mut self, insert: &mut CachedStatement<'_>, row: u64) -> Result<()> {
        let (email, phone, token) = (self.email(row), self.phone(), self.token());
        let name = format!("{} {}", self.name(), self.name());
        let hash = format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", self.hex(2), self.hex(4));
        let address =
            format!("{} {} Street, {:05}", self.below(300), self.name(), self.below(99_999));
        insert.execute((row.cast_signed(), email, name, phone, token, hash, address, time(row)))?;
        Ok(())
    }

    /// Gives an account another address, number and token, as after a theft.
    pub fn update_account(&mut self, update: &mut CachedStatement<'_>, row: u64) -> Result<()> {
        update.execute((row.cast_signed(), self.email(row), self.phone(), self.token()))?;
        Ok(())
    }

    fn body(&mut self) -> String {
        self.text(30, 160)
    }

    /// Between `least` and `most` words.
    fn text(&mut self, least: u64, most: u64) -> String {
        let mut text = String::new();
        for i in 0..least + self.below(most - least) {
            if i > 0 {
                text += if self.below(12) == 0 { ". " } else { " " };
            }
            // The cube of an even distribution makes the first words frequent.
            let n = self.words.len() as u64;
            let (x, y, z) = (self.below(n), self.below(n), self.below(n));
            text += &self.words[(x * y / n * z / n) as usize];
        }
        text
    }

    /// No document has a capital, so that the leak check finds no name in one.
    fn name(&mut self) -> String {
        let n = self.words.len() as u64;
        let word = &self.words[self.random.number() as usize % n as usize];
        word[..1].to_uppercase() + &word[1..]
    }

    /// Unique by its row, in a domain that no document has.
    fn email(&mut self, row: u64) -> String {
        format!("{}.{row}.{}@mail.example", self.name().to_lowercase(), self.below(10_000))
    }

    fn phone(&mut self) -> String {
        format!("+44 20 {:04} {:04}", self.below(10_000), self.below(10_000))
    }

    fn token(&mut self) -> String {
        format!("tok_{}", self.hex(2))
    }

    /// Digits of so many random numbers.
    fn hex(&mut self, numbers: u32) -> String {
        (0..numbers).map(|_| format!("{:016x}", self.random.number())).collect()
    }
}

/// Seconds since 1970.
fn time(row: u64) -> i64 {
    1_700_000_000 + row.cast_signed() * 61
}
