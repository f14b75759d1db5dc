"""Public ops, one file each."""
