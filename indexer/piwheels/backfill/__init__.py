"""Fills an index with what a master, its database or its site already knows."""
