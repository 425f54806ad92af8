"""What speaks piwheels' own protocol: it follows an unmodified master, or runs one (the bridge)."""
