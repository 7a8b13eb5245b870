"""Text files, cut into units of work → documents and their paragraphs."""
