"""Turns the log of a failed build into the reason why it failed."""
