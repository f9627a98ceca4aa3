"""A trained model as a folder that can be handed on: written, checked, read, and shared through the hub."""
