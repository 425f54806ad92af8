"""The shapes of what is stored and sent: tables, messages, documents."""
