"""piw-indexer: piwheels' JSON API, kept current by messages instead of queries.

The interface is the command line, the databases, the messages and the documents. Python modules are
not: they may change with any version.
"""

__version__ = "0.1.0"
