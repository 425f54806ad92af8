CREATE TABLE quarantine_cut (
    -- Refused messages of which only the beginning is kept.
    quarantine_id INTEGER PRIMARY KEY,
    bytes         INTEGER NOT NULL,          -- of the whole message
    sha256        BLOB NOT NULL              -- likewise
) STRICT;

CREATE TABLE quarantine_let_go (
    -- What was refused this month and is no longer kept: the oldest, where a source had too much.
    source   TEXT NOT NULL PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL                -- that were kept of them
) STRICT, WITHOUT ROWID;

CREATE INDEX quarantine_source ON quarantine (source);
