"""The live farm, as the status queue of a master shows it."""
