"""What became of every shot: kept while a run is taken, counted again afterwards."""
