-- Run once by the postgres image on an empty volume. POSTGRES_DB makes `prefect`; MLflow needs its own,
-- since both bring their own alembic_version table.
CREATE DATABASE mlflow;
