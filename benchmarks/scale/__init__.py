"""What the ops and training send between ranks, counted, and what that makes of their time on many ranks."""
