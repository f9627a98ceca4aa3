"""Sample sheets, patients, folds, tasks and labels."""
