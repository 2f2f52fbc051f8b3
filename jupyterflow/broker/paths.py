"""Where things live on this machine. Every function reads the environment when it is called."""

import os
from pathlib import Path


def home() -> Path:
    """The folder of what must be kept: the broker's data and address, worker slots, the cluster's key.

    `JUPYTERFLOW_DIR`, or `jupyterflow` in Jupyter's data folder. It need not exist yet.
    """
    if given := os.environ.get("JUPYTERFLOW_DIR"):
        return Path(given).expanduser().absolute()
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "jupyterflow"


def cache() -> Path:
    """The folder of what can be fetched again: Kafka's jars.

    `JUPYTERFLOW_CACHE`, or `jupyterflow` in the platform's cache folder. It need not exist yet.
    """
    if given := os.environ.get("JUPYTERFLOW_CACHE"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("jupyterflow", appauthor=False)


def key_file() -> Path:
    """The file with the cluster's key: `JUPYTERFLOW_KEY_FILE`, or `key` in `home()`. It need not exist yet."""
    if given := os.environ.get("JUPYTERFLOW_KEY_FILE"):
        return Path(given).expanduser().absolute()
    return home() / "key"
