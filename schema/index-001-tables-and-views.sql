CREATE TABLE packages (
    -- Every package of PyPI that piwheels knows.
    package     TEXT NOT NULL PRIMARY KEY,   -- canonical name (PEP 503)
    skip        TEXT NOT NULL DEFAULT '',    -- why it is not built; '' if it is
    description TEXT NOT NULL DEFAULT ''     -- the summary on PyPI
) STRICT, WITHOUT ROWID;

CREATE TABLE package_names (
    -- Every spelling of a package's name; the one seen last is the display name.
    name    TEXT NOT NULL PRIMARY KEY,
    package TEXT NOT NULL REFERENCES packages ON DELETE CASCADE,
    seen    TEXT NOT NULL                    -- UTC, with microseconds
) STRICT, WITHOUT ROWID;
CREATE INDEX package_names_package ON package_names (package, seen, name);

CREATE TABLE versions (
    package  TEXT NOT NULL REFERENCES packages ON DELETE CASCADE,
    version  TEXT NOT NULL,                  -- as its author wrote it
    released TEXT NOT NULL,                  -- UTC
    skip     TEXT NOT NULL DEFAULT '',       -- why it is not built; '' if it is
    yanked   INTEGER NOT NULL DEFAULT 0 CHECK (yanked BETWEEN 0 AND 1),
    PRIMARY KEY (package, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE builds (
    -- Every attempt to build a version, on one ABI.
    build_id INTEGER PRIMARY KEY,            -- the master's; below 0: a snapshot told no number
    package  TEXT NOT NULL,
    version  TEXT NOT NULL,
    abi_tag  TEXT NOT NULL,                  -- of the slave that built
    status   INTEGER NOT NULL CHECK (status BETWEEN 0 AND 1),  -- 1: it is said to have succeeded
    built_by INTEGER,                        -- the slave's number; null: not known
    built_at TEXT,                           -- UTC, when the build was logged; null: not known
    duration REAL,                           -- seconds; null: not known
    FOREIGN KEY (package, version) REFERENCES versions ON DELETE CASCADE
) STRICT;
CREATE INDEX builds_version ON builds (package, version, abi_tag);
CREATE INDEX builds_failed ON builds (built_at) WHERE status = 0;

CREATE TABLE files (
    -- Every file that a build made; belongs to the package and version of its build.
    filename            TEXT NOT NULL PRIMARY KEY,
    build_id            INTEGER NOT NULL REFERENCES builds ON DELETE CASCADE,
    filesize            INTEGER NOT NULL CHECK (filesize >= 0),   -- bytes
    filehash            TEXT NOT NULL,       -- SHA-256, 64 hexadecimal digits
    package_tag         TEXT NOT NULL,       -- the parts of the filename (PEP 427)...
    package_version_tag TEXT NOT NULL,
    py_version_tag      TEXT NOT NULL,
    abi_tag             TEXT NOT NULL,
    platform_tag        TEXT NOT NULL,
    requires_python     TEXT,                -- null and '' are different
    location            TEXT NOT NULL        -- URL = location/package/filename
) STRICT;
CREATE INDEX files_build ON files (build_id);

CREATE TABLE dependencies (
    -- What must be installed for a file to work.
    filename   TEXT NOT NULL REFERENCES files ON DELETE CASCADE,
    tool       TEXT NOT NULL CHECK (tool = 'apt' OR tool = 'pip' OR tool = ''),  -- IN takes longer
    dependency TEXT NOT NULL,
    PRIMARY KEY (filename, tool, dependency)
) STRICT, WITHOUT ROWID;

CREATE TABLE build_abis (
    -- The ABIs that are built for.
    abi_tag TEXT NOT NULL PRIMARY KEY,
    skip    TEXT NOT NULL DEFAULT ''         -- why it is not built for any more; '' if it is
) STRICT, WITHOUT ROWID;

CREATE TABLE preinstalled_apt_packages (
    -- What Raspberry Pi OS has installed already; left out of the published dependencies.
    abi_tag     TEXT NOT NULL,
    apt_package TEXT NOT NULL,
    PRIMARY KEY (abi_tag, apt_package)
) STRICT, WITHOUT ROWID;

CREATE TABLE abi_fits (
    -- Which files fit which build ABI, worked out once for every pair of tags (PEP 425).
    py_version_tag TEXT NOT NULL,            -- of the file
    file_abi_tag   TEXT NOT NULL,            -- of the file
    abi_tag        TEXT NOT NULL,            -- of build_abis
    rank           INTEGER,                  -- 0 own ABI, 1 abi3, 2 none; null: does not fit
    PRIMARY KEY (py_version_tag, file_abi_tag, abi_tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE download_counts (
    -- The counters of packages.json; also of packages that are not known (yet, or any more).
    package          TEXT NOT NULL PRIMARY KEY,
    counter_id       INTEGER NOT NULL UNIQUE,    -- of its rows in download_hours
    downloads_recent INTEGER NOT NULL DEFAULT 0, -- in the hours from state.window_start on
    downloads_all    INTEGER NOT NULL DEFAULT 0, -- ever
    listed           INTEGER NOT NULL DEFAULT 0, -- 1 while the package is in packages
    first_hour       INTEGER,                    -- where its rows in download_hours begin
    last_hour        INTEGER                     -- and end; null: it has none
) STRICT, WITHOUT ROWID;

CREATE TABLE download_hours (
    -- Downloads by the hour; datetime(hour, 'unixepoch') shows it.
    hour       INTEGER NOT NULL,             -- its start, seconds since 1970
    counter_id INTEGER NOT NULL,             -- of download_counts
    downloads  INTEGER NOT NULL,
    PRIMARY KEY (hour, counter_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE rewrites_pending (
    -- What must be written again: packages, and former aliases whose links must go.
    package TEXT NOT NULL PRIMARY KEY,       -- a name below project/
    serial  INTEGER NOT NULL                 -- of the last message that touched it
) STRICT, WITHOUT ROWID;
CREATE INDEX rewrites_pending_serial ON rewrites_pending (serial);

CREATE TABLE state (
    -- Where the index stands.
    --   journal_id       the journal it was made from
    --   applied_serial   the last message of the journal that is in it
    --   window_start     first hour of downloads_recent, seconds since 1970
    --   counters_serial  the last message that changed packages.json
    --   counters_written what packages.json was last written for: that serial, and that hour
    --   no_wheels        downloads that count for no package: not of a wheel
    key   TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE VIEW build_status AS
    -- How every version stands on every ABI: success, fail, error, pending or skip.
    SELECT package, version, abi_tag,
        CASE
            WHEN skipped THEN 'skip'
            WHEN file_build IS NOT NULL THEN 'success'
            WHEN last_build IS NULL THEN 'pending'
            WHEN (SELECT status FROM builds WHERE build_id = last_build) THEN 'error'
            ELSE 'fail'
        END AS status,
        CASE WHEN coalesce(file_build, last_build) > 0
            THEN coalesce(file_build, last_build) END AS build_id
    FROM (
        SELECT v.package, v.version, a.abi_tag,
            v.skip <> '' OR p.skip <> '' AS skipped,
            (   -- of the best fitting file
                SELECT f.build_id
                FROM builds b
                JOIN files f ON f.build_id = b.build_id
                JOIN abi_fits t ON t.py_version_tag = f.py_version_tag
                    AND t.file_abi_tag = f.abi_tag AND t.abi_tag = a.abi_tag
                WHERE b.package = v.package AND b.version = v.version AND t.rank IS NOT NULL
                ORDER BY t.rank, b.abi_tag <> t.abi_tag, f.build_id DESC
                LIMIT 1
            ) AS file_build,
            (   -- the latest attempt on that ABI
                SELECT max(b.build_id) FROM builds b
                WHERE b.package = v.package AND b.version = v.version AND b.abi_tag = a.abi_tag
            ) AS last_build
        FROM versions v
        JOIN packages p ON p.package = v.package
        CROSS JOIN build_abis a
        WHERE a.skip = ''
    );

CREATE VIEW builds_pending AS
    -- What is still to be built, by ABI.
    SELECT package, version, abi_tag FROM build_status WHERE status = 'pending';

CREATE VIEW recent_builds AS
    -- Every build, the latest first.
    SELECT build_id, package, version, abi_tag,
        CASE status WHEN 1 THEN 'success' ELSE 'fail' END AS status,
        built_by AS slave_id, built_at, duration,
        (SELECT count(*) FROM files f WHERE f.build_id = builds.build_id) AS files,
        printf('/logs/%04d/%04d/%04d.txt.gz', build_id / 100000000, build_id / 10000 % 10000, build_id % 10000) AS log_url
    FROM builds
    WHERE build_id > 0
    ORDER BY build_id DESC;

CREATE VIEW build_failures AS
    -- Every failed build, the latest first.
    SELECT build_id, package, version, abi_tag, built_by AS slave_id, built_at, duration,
        printf('/logs/%04d/%04d/%04d.txt.gz', build_id / 100000000, build_id / 10000 % 10000, build_id % 10000) AS log_url
    FROM builds
    WHERE status = 0 AND build_id > 0
    ORDER BY built_at DESC, build_id DESC;

CREATE VIEW top_downloads AS
    -- The most downloaded packages of the last 30 days first.
    SELECT package, downloads_recent, downloads_all
    FROM download_counts
    WHERE listed
    ORDER BY downloads_recent DESC, downloads_all DESC, package;

CREATE VIEW farm AS
    -- What every slave has built; slaves get new numbers when they start.
    SELECT built_by AS slave_id,
        group_concat(DISTINCT abi_tag) AS abi_tags,
        count(*) AS builds,
        sum(status = 0) AS failures,
        round(sum(duration)) AS busy_seconds,
        min(built_at) AS first_built_at,
        max(built_at) AS last_built_at
    FROM builds
    WHERE built_by IS NOT NULL
    GROUP BY built_by;
