"""The index: what each message changes in its tables, and which documents are pending."""
