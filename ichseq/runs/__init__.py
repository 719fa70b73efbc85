"""What runs and experiments leave on disk: names, places, reading and writing."""
