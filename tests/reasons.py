"""What failures.json should say, from the packages' documents and the download counters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def reasons(documents: Mapping[str, bytes], recent: Mapping[str, int]) -> list[dict[str, Any]]:
    """The reasons that block the newest versions.

    Args:
        documents: by package.
        recent: downloads of the last 30 days, by package.
    """
    blocked: dict[tuple[str, str], dict[str, set[str]]] = {}
    for package, document in documents.items():
        releases = json.loads(document)["releases"]
        for release in list(releases.values())[:1]:
            attempts = {build["build_id"]: build for build in release["builds"]}
            for abi, status in release["abis"].items():
                failure = attempts.get(status["build_id"], {}).get("failure")
                if status["status"] == "fail" and failure is not None:
                    key = failure["category"], failure["detail"]
                    blocked.setdefault(key, {}).setdefault(package, set()).add(abi)
    found = []
    for (category, detail), packages in blocked.items():
        abis = sorted(abi for some in packages.values() for abi in some)
        found.append(
            {
                "category": category,
                "detail": detail,
                "packages": len(packages),
                "downloads_recent": sum(recent[package] for package in packages),
                "abis": {abi: abis.count(abi) for abi in abis},
                "examples": sorted(packages, key=lambda one: (-recent[one], one))[:5],
            }
        )
    return sorted(
        found,
        key=lambda one: (
            -one["downloads_recent"], -one["packages"], one["category"], one["detail"]
        ),
    )  # fmt: skip
