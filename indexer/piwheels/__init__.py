"""Talks to an unmodified piwheels (DESIGN section 7)."""
