"""The CUDA kernels: the only modules that know Triton."""
