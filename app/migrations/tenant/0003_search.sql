-- The index holds no titles of its own: it reads them from pull_requests, and
-- the triggers tell it the old title, without which it could not forget it.
CREATE VIRTUAL TABLE pull_requests_fts USING fts5 (
    title, content = 'pull_requests', content_rowid = 'id'
);

CREATE TRIGGER pull_requests_fts_insert AFTER INSERT ON pull_requests BEGIN
    INSERT INTO pull_requests_fts (rowid, title) VALUES (new.id, new.title);
END;

CREATE TRIGGER pull_requests_fts_delete AFTER DELETE ON pull_requests BEGIN
    INSERT INTO pull_requests_fts (pull_requests_fts, rowid, title) VALUES ('delete', old.id, old.title);
END;

CREATE TRIGGER pull_requests_fts_update AFTER UPDATE OF id, title ON pull_requests BEGIN
    INSERT INTO pull_requests_fts (pull_requests_fts, rowid, title) VALUES ('delete', old.id, old.title);
    INSERT INTO pull_requests_fts (rowid, title) VALUES (new.id, new.title);
END;

INSERT INTO pull_requests_fts (pull_requests_fts) VALUES ('rebuild');
