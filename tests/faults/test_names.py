"""Publishers and subscribers over tcp, by names with addresses of IPv4, of IPv6, or of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support import Feed, Site, case_named, free_ports
from .injection import Shim

pytestmark = pytest.mark.crash

CASE = case_named("basic")
HOSTS = "four=127.0.0.1,six=::1,both=127.0.0.1,both=::1"
REACHED = [
    ("*", "four"),
    ("*", "six"),
    ("*", "127.0.0.1"),
    ("*", "[::1]"),
    ("[::]", "four"),
    ("[::1]", "six"),
    ("[::1]", "both"),
    ("127.0.0.1", "both"),
]
"""Where a publisher listens, and where a subscriber finds it."""


@pytest.mark.parametrize(("listens", "named"), REACHED)
def test_a_publisher_is_found_at_whatever_address_it_has(
    listens: str, named: str, site: Site, shim: Shim
) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    changes, replay = free_ports(2)
    there, named_feed = (
        Feed(f"tcp://{host}:{changes}", f"tcp://{host}:{replay}") for host in (listens, named)
    )
    insecure = "--allow-insecure-tcp"
    with site.publisher(there, CASE.messages, insecure) as publisher:
        settings = shim.settings(hosts=HOSTS)
        with site.daemon(named_feed, insecure, settings=settings) as daemon:
            site.wait_for_all(CASE.count, daemon, publisher)


def test_a_name_of_this_machine_may_have_ipv6_only(site: Site, shim: Shim) -> None:
    """It needs no --allow-insecure-tcp; a name with any other address does."""
    hosts = f"{HOSTS},there=2001:db8::1,half=::1,half=2001:db8::1,mapped=::ffff:192.0.2.1"
    for name, status in (("six", 0), ("both", 0), ("there", 2), ("half", 2), ("mapped", 2)):
        feed = Feed(f"tcp://{name}:5560", f"tcp://{name}:5561")
        settings = shim.settings(hosts=hosts)
        site.piw("run", *feed.options, "--validate", settings=settings, status=status)
