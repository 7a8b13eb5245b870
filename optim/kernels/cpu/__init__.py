"""The CPU kernel: C++ that is compiled at first use."""
