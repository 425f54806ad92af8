"""The journal: one database a UTC month, and its migrations (DESIGN section 3)."""

from __future__ import annotations

from ..base.database import Schema

APPLICATION_ID = 0x7069776A
"""`PRAGMA application_id` of a month of a journal: "piwj"."""

TABLES = """
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
"""

IDENTITIES = """
CREATE TABLE identities (
    -- What tells messages apart that come without a place in a feed: log entries, which may be
    -- given again with their file.
    digest INTEGER PRIMARY KEY               -- 64 bits, made from all that identifies it
) STRICT;
"""

CHECKSUMS = """
ALTER TABLE messages ADD COLUMN
    checksum /* CRC-32, see indexer/encode.py: a bit that flips in a message shows nowhere else.
                Null: written before there were any. */ INTEGER
"""

QUARANTINE_BOUNDS = """
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

CREATE INDEX quarantine_source ON quarantine (source)
"""

ADDRESSES = """
CREATE TABLE addresses (
    -- Where every change feed was heard first: nobody else may use its name. A new month begins
    -- with a copy.
    feed       TEXT NOT NULL PRIMARY KEY,    -- the publisher's name
    address    TEXT NOT NULL,                -- of its changes-queue
    server_key TEXT NOT NULL                 -- its public key of CURVE; empty without
) STRICT, WITHOUT ROWID;
"""

SCHEMA = Schema(
    "piw-indexer-journal",
    APPLICATION_ID,
    {
        "001-tables": TABLES,
        "002-identities": IDENTITIES,
        "003-checksums": CHECKSUMS,
        "004-quarantine-bounds": QUARANTINE_BOUNDS,
        "005-addresses": ADDRESSES,
    },
)
