"""The HTTP interface: one file a topic, problem documents for every error."""
