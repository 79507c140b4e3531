"""Processes and people: what starts, watches and ends them, and what the terminal says."""
