"""Index versions: recipes, the applier, snapshots."""
