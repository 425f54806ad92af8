"""Whether all is in order: for people, for Prometheus, for Nagios."""
