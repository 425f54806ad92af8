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
    """Make a pair of keys for CURVE, and print the public key.

    FILE.key is the private key. It stays on this machine, and --curve-key names it. FILE.pub is
    the public key, for the other side: a subscriber's key belongs to the publisher's
    --allowed-keys, a publisher's key to --curve-server-key of its subscribers. An existing file is
    never overwritten.
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
