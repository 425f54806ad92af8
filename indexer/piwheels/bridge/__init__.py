"""In a master's process: its changes become messages."""
