"""Beside an unmodified master: its database queue, and its log queue."""
