ALTER TABLE builds ADD COLUMN
    failure_category /* Why it failed, as "missing-header"; null: not known, or it did not. */ TEXT;

ALTER TABLE builds ADD COLUMN
    failure_detail /* The one detail that matters, as "pybind11/pybind11.h"; '': none. */ TEXT;

CREATE INDEX builds_reason ON builds (failure_category, failure_detail) WHERE failure_category IS NOT NULL;

-- What was left out of an index that has messages comes from the journal: it is made anew.
INSERT INTO state SELECT 'outdated', 1 WHERE EXISTS (SELECT 1 FROM state WHERE key = 'applied_serial');

CREATE TABLE file_contents (
    -- The contents that files have had before: a line when a file gets another build, or goes.
    -- Kept when builds, versions and packages go: somebody may have pinned a hash.
    content_id INTEGER PRIMARY KEY,          -- of one file, the later content has the greater one
    filename   TEXT NOT NULL,
    filehash   TEXT NOT NULL,                -- SHA-256, 64 hexadecimal digits
    filesize   INTEGER NOT NULL,             -- bytes
    build_id   INTEGER,                      -- that made it first; null: not known
    built_at   TEXT,                         -- UTC, when that was logged; null: not known
    UNIQUE (filename, filehash)
) STRICT;

CREATE TABLE pythons_refused (
    -- Which Requires-Python leaves out which build ABI's Python, worked out once for each.
    requires_python TEXT NOT NULL,           -- of files
    abi_tag         TEXT NOT NULL,           -- of build_abis
    PRIMARY KEY (requires_python, abi_tag)
) STRICT, WITHOUT ROWID;

DROP VIEW builds_pending;

DROP VIEW build_status;

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
                    AND NOT EXISTS (
                        SELECT 1 FROM pythons_refused r
                        WHERE r.requires_python = f.requires_python AND r.abi_tag = a.abi_tag
                    )
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

CREATE VIEW build_attempts AS
    -- Every attempt to build a version, the latest first, and why it failed.
    SELECT build_id, package, version, abi_tag,
        CASE status WHEN 1 THEN 'success' ELSE 'fail' END AS status,
        failure_category, failure_detail,
        built_by AS slave_id, built_at, duration,
        (SELECT count(*) FROM files f WHERE f.build_id = builds.build_id) AS files,
        printf('/logs/%04d/%04d/%04d.txt.gz', build_id / 100000000, build_id / 10000 % 10000, build_id % 10000) AS log_url
    FROM builds
    WHERE build_id > 0
    ORDER BY build_id DESC;

CREATE VIEW failure_reasons AS
    -- Why builds fail: the reasons with the most packages first.
    SELECT failure_category, failure_detail,
        count(DISTINCT package) AS packages, count(*) AS builds, max(built_at) AS last_built_at
    FROM builds
    WHERE failure_category IS NOT NULL
    GROUP BY failure_category, failure_detail
    ORDER BY packages DESC, builds DESC, failure_category, failure_detail;

CREATE VIEW file_history AS
    -- Every content of every file: the one that it has, and before it the earlier ones.
    SELECT filename, filehash, filesize, build_id, built_at, current FROM (
        SELECT f.filename, f.filehash, f.filesize,
            CASE WHEN f.build_id > 0 THEN f.build_id END AS build_id, b.built_at,
            1 AS current, NULL AS content_id
        FROM files f JOIN builds b ON b.build_id = f.build_id
        UNION ALL
        SELECT c.filename, c.filehash, c.filesize, c.build_id, c.built_at, 0, c.content_id
        FROM file_contents c
        WHERE NOT EXISTS (
            SELECT 1 FROM files f WHERE f.filename = c.filename AND f.filehash = c.filehash
        )
    )
    ORDER BY filename, current DESC, content_id DESC;
