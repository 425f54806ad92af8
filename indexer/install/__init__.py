"""What `install` writes: units, a configuration, and links to manual pages."""
