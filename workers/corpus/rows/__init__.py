"""Where the rows of a prepared corpus begin, so that any of them is found by its number."""
