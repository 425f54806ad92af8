"""Every property is tried with the profile of `profiles`."""

from __future__ import annotations

from . import profiles

profiles.load()
