"""`esteira predict`: one row, or a file of any size."""
