-- Rights within the database `mlflow`, run by infra/bootstrap.sh as often as it is: MLflow alone enters and migrates it.
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE mlflow TO "esteira-mlflow@${PROJECT}.iam";
GRANT USAGE, CREATE ON SCHEMA public TO "esteira-mlflow@${PROJECT}.iam";
