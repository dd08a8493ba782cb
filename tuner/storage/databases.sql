-- What PostgreSQL runs once, on an empty volume (docker-compose.yml): a role and a database for tuner with Optuna, and
-- for MLflow, which keeps its users in a third one. The passwords come from the secrets, so nobody sees them in `ps`.
\set tuner `cat "${TUNER_SECRETS:-/run/secrets}/postgres_tuner"`
\set mlflow `cat "${TUNER_SECRETS:-/run/secrets}/postgres_mlflow"`

CREATE ROLE tuner LOGIN PASSWORD :'tuner';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE tuner OWNER tuner;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
REVOKE ALL ON DATABASE tuner, mlflow, mlflow_auth FROM PUBLIC;
