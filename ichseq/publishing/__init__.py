"""Publishing: a run's model as a folder with a model card, pushed to the Hugging Face hub."""
