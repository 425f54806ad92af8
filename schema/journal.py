"""The journal: one database a UTC month; its migrations are journal-*.sql."""

from __future__ import annotations

from ..base.database import Schema
from . import scripts

APPLICATION_ID = 0x7069776A
"""`PRAGMA application_id` of a month of a journal: "piwj"."""

SCHEMA = Schema("piw-indexer-journal", APPLICATION_ID, scripts("journal"))
