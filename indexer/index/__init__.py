"""The index: what each message changes in its tables, and what is pending for the documents."""
