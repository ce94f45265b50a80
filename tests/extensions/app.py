"""An app with extensions of SQLite: `app.py make|query|rebuild|encrypt FILE`."""

import sys

import apsw
import sqlcipher3
import sqlite_vec


def tokenizer(connection, args):
    """Splits a text at blanks."""

    def split(utf8, flags, locale):
        at = 0
        for word in utf8.split(b" "):
            yield at, at + len(word), word.decode().lower()
            at += len(word) + 1

    return split


def connect(path):
    app = apsw.Connection(path)
    app.enable_load_extension(True)
    app.load_extension(sqlite_vec.loadable_path())
    app.register_fts5_tokenizer("ours", tokenizer)
    return app


def vector(at):
    return sqlite_vec.serialize_float32([at, at + 1, at + 2, at + 3])


def make(path):
    app = connect(path)
    app.execute(
        """
        CREATE TABLE users (id INTEGER PRIMARY KEY, name);
        CREATE TABLE notes (id INTEGER PRIMARY KEY, body);
        CREATE VIRTUAL TABLE notes_fts USING fts5 (body, content = 'notes', content_rowid = 'id', tokenize = 'ours');
        CREATE VIRTUAL TABLE letters USING fts5 (body, tokenize = 'ours');
        CREATE VIRTUAL TABLE parts USING fts5 (body, tokenize = 'trigram');
        CREATE VIRTUAL TABLE items USING vec0 (id INTEGER PRIMARY KEY, place FLOAT[4], kind TEXT, +note TEXT);
        CREATE VIRTUAL TABLE boxes USING rtree (id, low, high, +name);
        BEGIN;
        """
    )
    for i in range(1, 100):
        app.execute("INSERT INTO users VALUES (?1, 'user ' || ?1)", (i,))
        app.execute("INSERT INTO notes VALUES (?1, 'hunter2isnosecret of ' || ?1)", (i,))
        app.execute("INSERT INTO letters VALUES ('correcthorsebatterystaple ' || ?1)", (i,))
        app.execute("INSERT INTO parts VALUES ('number ' || ?1)", (i,))
        app.execute("INSERT INTO items VALUES (?1, ?2, 'kind', 'item ' || ?1)", (i, vector(i)))
        app.execute("INSERT INTO boxes VALUES (?1, ?1, ?1 + 2, 'box ' || ?1)", (i,))
    app.execute("INSERT INTO notes_fts (notes_fts) VALUES ('rebuild'); COMMIT")


def query(path):
    app = connect(path)
    found = [
        app.execute("SELECT note FROM items WHERE place MATCH ?1 AND k = 1", (vector(7),)).get,
        app.execute("SELECT name FROM boxes WHERE low >= 7 AND high <= 9").get,
        app.execute("SELECT body FROM parts WHERE parts MATCH '\"ber 77\"'").get,
        app.execute("SELECT count(*) FROM notes_fts WHERE notes_fts MATCH 'hunter2isnosecret'").get,
        app.execute("SELECT count(*) FROM notes_fts WHERE notes_fts MATCH 'masked'").get,
        app.execute("SELECT count(*) FROM letters WHERE letters MATCH 'correcthorsebatterystaple'").get,
        app.execute("SELECT name FROM users WHERE id = 1").get,
    ]
    print(*found, sep=", ")


def rebuild(path):
    app = connect(path)
    app.execute("INSERT INTO notes_fts (notes_fts) VALUES ('rebuild')")
    app.execute("INSERT INTO letters VALUES ('a new one')")
    app.execute("INSERT INTO letters (letters) VALUES ('integrity-check')")
    app.execute("INSERT INTO notes_fts (notes_fts, rank) VALUES ('integrity-check', 1)")
    print(app.execute("PRAGMA integrity_check").get)


def encrypt(path):
    app = sqlcipher3.connect(path)
    app.execute("PRAGMA key = 'a key'")
    app.execute("CREATE TABLE t (a)")
    app.commit()


{"make": make, "query": query, "rebuild": rebuild, "encrypt": encrypt}[sys.argv[1]](sys.argv[2])
