"""Implementations of the operators, one module for each kind of device."""
