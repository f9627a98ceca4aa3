"""From stores to training batches: bags, and transforms fitted on the training patients of a fold."""
