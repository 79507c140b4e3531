"""Small data read, growing or finished, ours or of others; compared, cut, made into tables."""
