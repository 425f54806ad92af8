"""What every package may use: errors, clocks, files, databases, processes, logs, options."""
