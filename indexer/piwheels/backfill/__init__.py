"""What a master, its database or its site knew before the first message."""
