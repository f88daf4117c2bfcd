"""`esteira validate`: changed code against the model in production."""
