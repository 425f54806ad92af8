CREATE TABLE addresses (
    -- Where every change feed was heard first: nobody else may use its name. A new month begins
    -- with a copy.
    feed       TEXT NOT NULL PRIMARY KEY,    -- the publisher's name
    address    TEXT NOT NULL,                -- of its changes-queue
    server_key TEXT NOT NULL                 -- its public key of CURVE; empty without
) STRICT, WITHOUT ROWID;
