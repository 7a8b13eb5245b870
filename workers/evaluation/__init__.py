"""How good a model is: on text that it does not learn."""
