"""What is done with units of text, in any order and in any process, and what is put together from it."""
