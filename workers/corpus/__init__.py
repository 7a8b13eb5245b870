"""From text to token shards: sentences, vocabulary, preparation."""
