"""What everything may use: errors, clocks, files, databases, processes, logs, options."""
