"""piw-indexer: piwheels' JSON API, kept current by messages instead of queries."""

__version__ = "0.1.0"
