TARGETS = (
    "from_json",
    "from_msgpack",
    "published",
    "heartbeat",
    "replayed",
    "replay_request",
    "cbor",
)
"""What may be fuzzed."""
