"""Change feed: the publisher and the subscriber of DESIGN section 4."""
