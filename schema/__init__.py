"""Schemas as data: of the messages, of the index and of the journal."""
