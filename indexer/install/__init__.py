"""What `install` writes: units, a configuration, links to manual pages."""
