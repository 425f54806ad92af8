"""What `check` compares: the journal, the index and the documents."""
