"""`piw-indexer keys`: the keys of CURVE."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..base import options, printable
from ..base.log import event
from ..feed import keys as curve

log = logging.getLogger(__name__)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@options.configuration
@options.flag("show")
def keys(file: Path, show: bool) -> None:
    """Make a pair of keys for CURVE: FILE.key, the private one, and FILE.pub; print the public one.

    The private key stays on this machine, where --curve-key names it. The public one goes to those
    who shall know us: a subscriber's among the publisher's --allowed-keys, a publisher's to
    --curve-server-key of its subscribers. A file that exists is never overwritten.
    """
    private, public = curve.files(file)
    if show:
        pair = curve.read_private(private)
    else:
        pair = curve.make()
        curve.write(file, pair)
        log.info(
            "%s is the private key, %s the public one",
            private,
            public,
            extra=event("keys-made", path=private),
        )
    printable.echo(pair.public.decode())
