ALTER TABLE messages ADD COLUMN
    checksum /* CRC-32, see indexer/encode.py: a bit that flips in a message shows nowhere else.
                Null: written before there were any. */ INTEGER;
