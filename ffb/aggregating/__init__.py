"""Rows of all producers into one ordered stream, and the runs that they belong to."""
