-- Run once, when the volume is new; the database of the services is POSTGRES_DB.
CREATE DATABASE mlflow;
