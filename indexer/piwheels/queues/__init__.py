"""The database queue and the log queue of an unmodified master."""
