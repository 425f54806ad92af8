"""The index: its tables, views and migrations, which are index-*.sql.

Tables have the names of piwheels' own database. Comments are inside the statements, so that
`.schema` shows them to an administrator. Times are UTC text that SQLite's date functions read.
"""

from __future__ import annotations

from ..base.database import Schema
from . import scripts

APPLICATION_ID = 0x70697769
"""`PRAGMA application_id` of an index: "piwi"."""

NO_WINDOW = 2**62
"""A `window_start` after every hour: no download is in the window yet."""

SCHEMA = Schema("piw-indexer-index", APPLICATION_ID, scripts("index"))
