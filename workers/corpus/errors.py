"""What can be wrong with a corpus."""


class CorpusError(ValueError):
    """A corpus, vocabulary or prepared folder cannot be used; the message names it and the remedy."""
