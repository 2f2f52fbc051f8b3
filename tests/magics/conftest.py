from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def shell() -> Iterator[Any]:
    """An IPython shell with the extension loaded; what runs in it ends with the test."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "jupyterflow.magics")
    yield shell
    shell.run_line_magic("unload_ext", "jupyterflow.magics")
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()
