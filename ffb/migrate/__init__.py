"""Production configurations of smalldata_tools, read without running them, become our TOML."""
