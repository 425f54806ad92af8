CREATE TABLE ended_builds (
    -- Builds that the master's status feed showed to end, until the master was asked for their
    -- packages. Not from the journal, and not in a rebuilt index.
    package  TEXT NOT NULL,                  -- canonical name (PEP 503)
    version  TEXT NOT NULL,
    abi_tag  TEXT NOT NULL,                  -- of the slave; '': not known
    slave_id INTEGER NOT NULL,               -- the slave's number
    outcome  TEXT NOT NULL,                  -- success, fail or unknown
    began    TEXT,                           -- UTC, by the master's clock; null: not heard
    ended    TEXT NOT NULL,                  -- UTC, by the master's clock
    PRIMARY KEY (package, version, abi_tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE master_answers (
    -- When the master last answered for each package. Not from the journal, and not in a rebuilt
    -- index.
    package     TEXT NOT NULL PRIMARY KEY,
    answered_at INTEGER NOT NULL,            -- microseconds since 1970; 0: not yet
    differed_at INTEGER NOT NULL             -- when an answer last differed; 0: never
) STRICT, WITHOUT ROWID;
CREATE INDEX master_answers_age ON master_answers (answered_at);
