"""The journal: every message in order, one database a month; damage in it."""
