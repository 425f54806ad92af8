"""Talking to a piwheels that runs today, as it is (DESIGN section 7)."""
