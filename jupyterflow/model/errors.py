"""The one tree of exceptions.

FlowError            everything that JupyterFlow raises; `.code` is stable (`JF101`)
└── FlowTimeout      a bounded wait ended before its condition came true
"""


class FlowError(Exception):
    """An error of JupyterFlow: one line, `CODE what, where - the likely fix`.

    Codes: JF1xx declaration, JF2xx codecs, JF3xx plan, JF4xx running, JF5xx Kafka, JF6xx cluster,
    JF7xx notebook and shell.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code} {self.message}"

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the one line that matters."""
        return [str(self)]


class FlowTimeout(FlowError, TimeoutError):
    """A bounded wait ended before its condition came true."""


def did_you_mean(name: str, known: object) -> str:
    """` - did you mean 'x'?` for the nearest of *known* names, or an empty text."""
    from difflib import get_close_matches

    near = get_close_matches(name, [str(k) for k in known], n=1)  # type: ignore[attr-defined]
    return f" - did you mean '{near[0]}'?" if near else ""
