"""Feature extraction, the feature store, import and export."""
