"""Whether everything works: for people, for Prometheus, for Nagios."""
