"""What a run leaves on disk: folders, names, run.json and the log."""
