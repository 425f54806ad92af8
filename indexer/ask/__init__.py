"""What is known of one package: its history, and why a document is as it is."""
