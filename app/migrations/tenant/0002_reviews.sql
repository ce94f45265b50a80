CREATE TABLE reviews (
    id              INTEGER PRIMARY KEY,
    pull_request_id INTEGER NOT NULL REFERENCES pull_requests (id) ON DELETE CASCADE,
    reviewer        TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('approved', 'changes_requested', 'commented')),
    body            TEXT NOT NULL,
    created_at      INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

CREATE INDEX reviews_by_pull_request ON reviews (pull_request_id);
