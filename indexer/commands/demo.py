"""`piw-indexer demo`: a simulated farm and the daemon."""

from __future__ import annotations

import click


@click.command()
def demo() -> None:
    """A simulated farm and the daemon, for a first look."""
