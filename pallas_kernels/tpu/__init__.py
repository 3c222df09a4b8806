"""What the kernels for TPUs (Mosaic TPU) share: lists of blocks, and one forward pass."""
