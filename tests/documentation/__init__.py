"""What `make docs` makes from the product, and what the tests read in the documents."""
