"""What surrounds the kernels in a step: placing gradients, taking their norm, building calls or remembering them."""
