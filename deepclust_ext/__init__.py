"""Deep clustering kernels and trainers."""
