"""A piwheels master for tests: its queues as real sockets, its farm, and what a real one said."""
