"""The state directory: journal and index, checkpoints, backups, and salvage."""
