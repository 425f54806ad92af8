"""The daemon: takes messages from its sources, keeps the index and has the documents written."""
