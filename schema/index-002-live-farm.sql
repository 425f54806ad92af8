DROP VIEW farm;

CREATE TABLE slaves (
    -- The build slaves that are there, as the master's status feed tells (run --status-queue).
    -- Empty without one. Not made from the journal: a rebuild empties it until the feed speaks.
    -- Times are UTC by the master's clock; null: not known, or not said before we listened.
    slave_id         INTEGER PRIMARY KEY,    -- the master's; it counts anew whenever it starts
    label            TEXT,                   -- its name
    abi_tag          TEXT,                   -- what it builds for
    platform         TEXT,                   -- of the files that it makes
    py_version       TEXT,
    os_name          TEXT,
    os_version       TEXT,
    board_revision   TEXT,
    board_serial     TEXT,
    build_timeout    REAL,                   -- seconds that a build may take
    busy_timeout     REAL,                   -- seconds that it may be silent
    first_seen       TEXT,
    last_seen        TEXT NOT NULL,
    doing            TEXT NOT NULL CHECK (doing IN
                     ('', 'starting', 'idle', 'paused', 'building', 'sending', 'cleaning')),
    since            TEXT,                   -- when it began to do so...
    since_exact      INTEGER NOT NULL CHECK (since_exact IN (0, 1)),  -- 0: or earlier
    package          TEXT,                   -- what it builds, sends or cleans up after
    version          TEXT,
    filename         TEXT,                   -- what it sends
    builds_succeeded INTEGER NOT NULL,       -- since it came, as far as the feed showed it
    builds_failed    INTEGER NOT NULL,       -- or were skipped
    stats_at         TEXT,                   -- by its own clock: when this was measured...
    load_average     REAL,                   -- of one minute
    cpu_temp         REAL,                   -- Celsius; 0: it has no thermometer
    mem_size         INTEGER,                -- bytes
    mem_free         INTEGER,
    swap_size        INTEGER,
    swap_free        INTEGER,
    disk_size        INTEGER,                -- of the directory that it builds in
    disk_free        INTEGER,
    clock_skew       REAL                    -- seconds that its clock is behind the master's
) STRICT;

CREATE TABLE masters (
    -- The master whose status feed is followed; live, as `slaves` is.
    status_queue         TEXT NOT NULL PRIMARY KEY,
    label                TEXT,               -- its name
    os_name              TEXT,
    os_version           TEXT,
    board_revision       TEXT,
    board_serial         TEXT,
    started              TEXT,
    last_seen            TEXT NOT NULL,      -- when anything was heard of it
    stats_at             TEXT,               -- when this was counted...
    packages_built       INTEGER,
    builds_last_hour     TEXT,               -- JSON: {ABI: number}
    builds_time          REAL,               -- seconds, of all builds
    builds_size          INTEGER,            -- bytes, of all files
    builds_pending       TEXT,               -- JSON: {ABI: number}
    new_last_hour        INTEGER,
    files_count          INTEGER,
    downloads_last_hour  INTEGER,
    downloads_last_month INTEGER,
    downloads_all        INTEGER,
    load_average         REAL,
    cpu_temp             REAL,               -- Celsius; 0: it has no thermometer
    mem_size             INTEGER,            -- bytes
    mem_free             INTEGER,
    swap_size            INTEGER,
    swap_free            INTEGER,
    disk_size            INTEGER,            -- of the directory that it publishes to
    disk_free            INTEGER
) STRICT, WITHOUT ROWID;

CREATE VIEW farm AS
    -- Every slave: first those that are there, if the master's status feed is followed, with what
    -- they do; then what former ones have built. The master gives its numbers anew whenever it
    -- starts: to one that is there only belongs what was built since it came.
    SELECT * FROM (
        WITH built AS (
            SELECT b.built_by AS slave_id,
                coalesce(b.built_at >= s.first_seen, 0) AS present,
                group_concat(DISTINCT b.abi_tag) AS abi_tags,
                count(*) AS builds,
                sum(b.status = 0) AS failures,
                round(sum(b.duration)) AS busy_seconds,
                min(b.built_at) AS first_built_at,
                max(b.built_at) AS last_built_at
            FROM builds b
            LEFT JOIN slaves s ON s.slave_id = b.built_by
            WHERE b.built_by IS NOT NULL
            GROUP BY b.built_by, present
        )
        SELECT s.slave_id, coalesce(built.abi_tags, s.abi_tag) AS abi_tags,
            coalesce(built.builds, 0) AS builds, coalesce(built.failures, 0) AS failures,
            built.busy_seconds, built.first_built_at, built.last_built_at,
            s.label, s.doing, s.package, s.version, s.since, s.first_seen, s.last_seen,
            s.platform, s.os_name, s.os_version, s.board_revision, s.board_serial,
            s.load_average, s.cpu_temp, s.mem_size, s.mem_free, s.disk_size, s.disk_free,
            s.clock_skew
        FROM slaves s
        LEFT JOIN built ON built.slave_id = s.slave_id AND built.present
        UNION ALL
        SELECT slave_id, abi_tags, builds, failures, busy_seconds, first_built_at, last_built_at,
            NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
            NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM built
        WHERE NOT present
    )
    ORDER BY last_seen IS NULL, slave_id;
