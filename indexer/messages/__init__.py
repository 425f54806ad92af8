"""Messages: their types, their bytes on the wire and in files, and what is refused."""
