"""Helpers of the tests: the emulator, samples of every op, small runs."""
