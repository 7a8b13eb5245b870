"""The clusters that jobs run on."""
