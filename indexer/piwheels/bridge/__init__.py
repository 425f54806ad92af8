"""Runs in a master's process and turns its changes into messages."""
