"""The I/O thread: one thread that owns an asyncio loop, so that slow user code never starves a heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from jupyterflow.model import FlowError, FlowTimeout
from jupyterflow.transport.kafka._quiet import rate_limit_client_logs

T = TypeVar("T")
_log = logging.getLogger("jupyterflow.kafka")


class IOThread:
    """A daemon thread running an asyncio loop. Many engines and admins may share one."""

    def __init__(self, name: str = "jupyterflow-io") -> None:
        rate_limit_client_logs()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._on_loop_error)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                with contextlib.suppress(Exception):
                    self.loop.run_until_complete(asyncio.wait(tasks, timeout=5))
            with contextlib.suppress(Exception):
                self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    @staticmethod
    def _on_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        _log.debug("in the I/O loop: %s", context.get("message"), exc_info=context.get("exception"))

    @property
    def inside(self) -> bool:
        """Whether the caller is on this thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop; the future can be waited for on any other thread."""
        if self.loop.is_closed() or not self._thread.is_alive():
            coroutine.close()
            raise FlowError("JF527", "the I/O thread is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = 30.0) -> T:
        """Run a coroutine on the loop and wait for its result, at most *timeout* seconds (FlowTimeout JF522)."""
        if self.inside:
            coroutine.close()
            raise RuntimeError("IOThread.call from the I/O thread itself would wait for ever")
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except FutureTimeout:
            if future.done():
                raise
            future.cancel()
            raise FlowTimeout("JF522", f"Kafka did not answer within {timeout:g} s") from None

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Run a function on the loop soon, from any thread; dropped when the thread is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *args)

    def close(self, timeout: float = 10.0) -> None:
        """Cancel what runs, stop the loop, and wait for the thread."""
        if self._thread.is_alive():
            self.soon(self.loop.stop)
            if not self.inside:
                self._thread.join(timeout)
