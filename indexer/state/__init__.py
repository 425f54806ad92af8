"""The state directory: journal and index together, their checkpoints, backups and rescue."""
