"""The account by which workers write to an MLflow server with users: made in its database, before the server starts."""

from __future__ import annotations

from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

from tuner.errors import Problem, SpecError, TrackingUnavailable
from tuner.home import shown


def provide_account(name: str, password: str) -> None:
    """Make an account that is no administrator's, or give it this password.

    MLflow lets it make experiments and change those, read all others, and change no users. Two of these at once may
    break each other, so hold a lock.

    Args:
        name: the account's.
        password: of twelve characters or more.

    Raises:
        SpecError: the account is an administrator's.
        TrackingUnavailable: the database does not answer, or is of a newer MLflow.
    """
    settings = read_auth_config()
    try:
        users = SqlAlchemyStore()
        users.init_db(settings.database_uri)  # type: ignore[no-untyped-call]
        known = users.get_user(name) if users.has_user(name) else None
    except Exception as error:
        reason = shown(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = shown(settings.database_uri)
        raise TrackingUnavailable(f"MLflow's database of users {where} could not be prepared: {reason}") from error
    if name == settings.admin_username or (known is not None and known.is_admin):
        problem = Problem(
            "MLFLOW_TRACKING_USERNAME", f"must be an account for workers, but {name} is an administrator."
        )
        raise SpecError("tuner init-db", [problem])
    if known is None:
        users.create_user(name, password)
    elif not users.authenticate_user(name, password):
        users.update_user(name, password)
    users.engine.dispose()
