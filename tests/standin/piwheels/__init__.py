"""A stand-in for piwheels: as much of its shape as the bridge looks at, on SQLite.

Nothing of it is piwheels' own; `piw-indexer bridge` runs it as it would run the real one.
"""

from __future__ import annotations

__version__ = "0.23"
