"""What is shown of committed rows: statistics, snapshots, and the proof that they are the rows."""
