"""`esteira demo`: a pipeline's data, month by month, through the whole running stack."""
