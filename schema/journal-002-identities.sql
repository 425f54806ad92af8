CREATE TABLE identities (
    -- What tells messages apart that come without a place in a feed: log entries, which may be
    -- given again with their file.
    digest INTEGER PRIMARY KEY               -- 64 bits, made from all that identifies it
) STRICT;
