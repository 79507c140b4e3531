"""What the file of an experiment may say, in layers, tables, expressions; and what is wrong."""
