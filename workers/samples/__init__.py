"""From token shards to batches, each a function of the seed and the sample numbers alone."""
