"""Units, and what belongs to them, as `piw-indexer install` writes them."""
