"""CSV: records, their places, and the batches made of them."""
