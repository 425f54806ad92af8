CREATE TABLE packages_waiting (
    -- How many versions of a package wait to be built on an ABI: as its document says it. Counted
    -- when the document is written, and not in a rebuilt index.
    package  TEXT NOT NULL,                  -- canonical name (PEP 503)
    abi_tag  TEXT NOT NULL,                  -- of build_abis
    versions INTEGER NOT NULL,               -- at least 1
    PRIMARY KEY (package, abi_tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE waiting (
    -- The sums of packages_waiting by ABI.
    abi_tag  TEXT NOT NULL PRIMARY KEY,
    versions INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX builds_built_at ON builds (built_at, abi_tag);

-- Packages are counted when they are written: all of them, once.
INSERT INTO rewrites_pending
    SELECT package, coalesce((SELECT value FROM state WHERE key = 'applied_serial'), 0) FROM packages WHERE true
    ON CONFLICT (package) DO NOTHING;
