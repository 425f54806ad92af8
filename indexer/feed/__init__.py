"""The change feed of docs/messages.md: a publisher and a subscriber, with what guards them."""
