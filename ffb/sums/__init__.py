"""Sums of frames over shots: held by producers, sent as deltas, merged once."""
