"""Kernels in Triton; `optim.kernels.cuda` is the host code that starts them."""
