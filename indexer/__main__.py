"""`python -m indexer` is `piw-indexer`."""

from .cli import main

if __name__ == "__main__":
    main()
