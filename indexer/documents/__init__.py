"""The documents: rows become bytes, and bytes become files of the output tree."""
