"""Databases that other programs keep our records in: whether one can be used, told in seconds and without its password.

MLflow and Prefect try for minutes on end, and say the address with all that is in it.
"""

from functools import cache
from typing import Any

from model.registry.store import STORE_VARIABLE, Store, hidden, is_database, without_password
from tfrecords.errors import AoiError, install, refuse

CONNECT_SECONDS = 5
# How a driver is told how long it may take; all others use their own time.
TIMEOUTS = {"psycopg2": "connect_timeout", "psycopg": "connect_timeout", "pymysql": "connect_timeout"}


def check_store(store: Store) -> None:
    """Raises: AoiError where MLflow's store is a database that can't be used; asks once per process."""
    if is_database(store.uri) and not store.embedded:
        _check_once(store.uri)


@cache
def _check_once(address: str) -> None:
    check_database(STORE_VARIABLE, address)


def check_database(variable: str, address: str) -> None:
    """Connects once to the database at an SQLAlchemy address. variable: the one that names it.

    Raises: AoiError within some seconds, where the address is none, its driver is not installed, nobody answers there,
        or the user may not come in.
    """
    from sqlalchemy.engine import make_url

    try:
        url = make_url(address)
        (_ask_asyncpg if url.get_dialect().driver == "asyncpg" else _ask)(url)
    except Exception as error:  # every driver has kinds of its own
        raise _told(variable, address, error)


def _ask(url: Any) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    option = TIMEOUTS.get(url.get_dialect().driver)
    engine = create_engine(url, poolclass=NullPool, connect_args={option: CONNECT_SECONDS} if option else {})
    engine.connect().close()


def _ask_asyncpg(url: Any) -> None:
    import asyncio  # which takes longer to import than a store that is no database takes to be checked

    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def ask() -> None:
        engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": CONNECT_SECONDS})
        await (await engine.connect()).close()

    asyncio.run(ask())


def _told(variable: str, address: str, error: Exception) -> AoiError:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    if isinstance(error, ModuleNotFoundError):
        remedy = f"Install it: {install('postgresql')}"
        return refuse(variable, f"the driver {error.name} for {hidden(address)} is not installed", remedy)
    if isinstance(error, ArgumentError | NoSuchModuleError):
        remedy = "Write it as postgresql://USER:PASSWORD@HOST/DATABASE, other marks in the password as %40"
        return refuse(variable, f"{hidden(address)} is no address of a database", remedy)
    cause = getattr(error, "orig", None) or error
    said = " ".join(without_password(str(cause), address).split())[:300]
    seen = f"{hidden(address)} can't be used ({said or f'no answer within {CONNECT_SECONDS} s'})"
    return refuse(variable, seen, "Check host, port, user, password and database in it, and whether the server is up")
