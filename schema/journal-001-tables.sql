CREATE TABLE messages (
    -- Every accepted message, in the order in which they act.
    serial      INTEGER PRIMARY KEY,         -- counts through all months, without holes
    at          INTEGER NOT NULL,            -- when it happened: microseconds since 1970, UTC
    msg         TEXT NOT NULL,               -- its name, NEWPKG...
    package     TEXT,                        -- the package that it names
    feed_id     INTEGER REFERENCES feeds,    -- who sent it; null: not known
    feed_serial INTEGER,                     -- its number in that feed
    data        BLOB NOT NULL                -- its fields in order, msgpack
) STRICT;

CREATE TABLE feeds (
    -- How far every feed has been accepted. A new month begins with a copy.
    feed_id INTEGER PRIMARY KEY,
    feed    TEXT NOT NULL,                   -- the publisher's name; "file:" and a file's SHA-256
    epoch   INTEGER NOT NULL,                -- which life of the publisher's spool
    serial  INTEGER NOT NULL,                -- the last one accepted or quarantined
    broken  TEXT,                            -- why messages are lost; null: none are
    UNIQUE (feed, epoch)
) STRICT;

CREATE TABLE quarantine (
    -- What could not be decoded or was not valid, as it came.
    quarantine_id INTEGER PRIMARY KEY,       -- counts through all months
    source        TEXT NOT NULL,             -- a socket's address or a file's name
    feed_id       INTEGER REFERENCES feeds,  -- null: not even that could be read
    feed_serial   INTEGER,
    received      INTEGER NOT NULL,          -- when first: microseconds since 1970, UTC
    times         INTEGER NOT NULL DEFAULT 1,-- how often the same came, if it has no position
    format        TEXT NOT NULL CHECK (format IN ('msgpack', 'json', 'cbor')),
    path          TEXT NOT NULL,             -- where in the message the fault lies
    reason        TEXT NOT NULL,
    raw           BLOB NOT NULL,             -- without what is never stored (host, output)
    digest        BLOB UNIQUE                -- of source and raw, if it has no position
) STRICT;

CREATE TABLE retries (
    -- Which quarantined messages were accepted later.
    quarantine_id INTEGER PRIMARY KEY,
    serial        INTEGER NOT NULL           -- of messages
) STRICT;

CREATE TABLE meta (
    -- journal_id  names the journal; the same in every month
    -- epoch       when a publisher's spool was made; the same in every month
    -- after       the last serial before this month
    -- after_quarantine  the last quarantine_id before this month
    -- lost        serials of this month that were given up, as JSON: [[first, last], ...]
    key   TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;
